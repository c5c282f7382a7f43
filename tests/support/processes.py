"""Processes and ports of this machine."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from waiting import wait_until

LISTEN = "127.0.0.1"


def list_processes() -> dict[int, tuple[list[str], Path]]:
    """Return {number: (words of its command line, its working folder)} of the processes that may be asked."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            words = (folder / "cmdline").read_text(errors="replace").split("\0")
            if words != [""]:
                found[int(folder.name)] = words, (folder / "cwd").readlink()
    return found


def list_session(session: int) -> list[int]:
    """Return the processes of a session that live."""
    numbers = (int(folder.name) for folder in Path("/proc").glob("[0-9]*"))
    return [number for number in numbers if _status(number)[3:4] == [str(session)] and is_alive(number)]


def list_children(parent: int) -> list[int]:
    """Return the processes that a process has started and that live."""
    numbers = (int(folder.name) for folder in Path("/proc").glob("[0-9]*"))
    return [number for number in numbers if _status(number)[1:2] == [str(parent)] and is_alive(number)]


def is_alive(process: int) -> bool:
    """Return False also for one that has ended and that its parent has not asked about."""
    return _status(process)[:1] not in ([], ["Z"])


def _status(process: int) -> list[str]:
    """Return the fields of /proc/N/stat from the state on (then parent, group, session); none if it is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def find_process(pid_file: Path, name: str) -> int | None:
    """Return the process of a pid file, if it still is the one for which the file was written."""
    try:
        process = int(pid_file.read_text())
        is_it = Path(f"/proc/{process}/comm").read_text().strip() == name
    except (OSError, ValueError):
        return None
    return process if is_it and is_alive(process) else None


def kill(process: int, number: int) -> None:
    """Send a signal and wait for the end."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)
    wait_until(lambda: not is_alive(process), f"process {process} to end", seconds=30)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LISTEN, 0))
        return [each.getsockname()[1] for each in sockets]


def answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex((LISTEN, port)) == 0
