"""Processes and ports of this machine, for the daemons of the test cluster."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

LISTEN = "127.0.0.1"


def wait_until(condition: Callable[[], object], what: str, tell: Callable[[], str] = lambda: "", seconds: float = 120):
    """Poll until `condition` is true and return its value; `TimeoutError` with what `tell` says if it never is."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}\n{tell()}")
        time.sleep(0.1)


def find_process(pid_file: Path, name: str) -> int | None:
    """The process of a pid file, if it still is the one it was written for."""
    try:
        process = int(pid_file.read_text())
        is_it = Path(f"/proc/{process}/comm").read_text().strip() == name
        ended = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (OSError, ValueError):
        return None
    return process if is_it and not ended else None


def kill(process: int, number: int) -> None:
    """Send a signal and wait for the end."""
    def ended() -> bool:
        try:
            return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].startswith("Z")
        except OSError:
            return True

    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)
    wait_until(ended, f"process {process} to end", seconds=30)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LISTEN, 0))
        return [each.getsockname()[1] for each in sockets]


def answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex((LISTEN, port)) == 0
