"""One writer for a folder, over processes and nodes: a lock that says who holds it and that opens after a crash.

The file ``.lock`` names its holder. The operating system's lock on it (flock) ends with its process; not every
cluster's file system carries that to other nodes, so the holder also counts up a number in the file, and a lock of
another node whose number stands still is nobody's. When SLURM starts a job again although its earlier life still runs,
on a node that it lost sight of, the later life asks for the folder in ``.lock.next`` and the earlier one gives way.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpc_vsr import cluster
from hpc_vsr.errors import Failed, InputError

NAME, NEXT = ".lock", ".lock.next"
BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 16.0  # a number that stood still for so long is a dead process's: three beats
TAKEOVER_SECONDS = 300.0  # for the earlier life of a job to end its step and give way
POLL_SECONDS = 0.2


class Lock:
    """Held by this process while `only_writer` lasts."""

    def __init__(self, folder: Path, descriptor: int, holder: dict[str, Any]):
        self.folder, self._descriptor, self._holder = folder, descriptor, holder
        self._taken_by: dict[str, Any] | None = None
        self._ended = threading.Event()
        self._write(0)
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `Failed` if a later life of this job has asked for the folder; call it before writing."""
        if self._taken_by is not None:
            raise Failed(f"{self.folder}: {describe(self._taken_by)} has taken over; this process ends")

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        if self._taken_by is None:
            (self.folder / NAME).unlink(missing_ok=True)
        os.close(self._descriptor)

    def _beat(self) -> None:
        count = 0
        while not self._ended.wait(BEAT_SECONDS):
            count += 1
            asking = read_holder(self.folder / NEXT)
            if asking is not None and _is_later_life(asking, self._holder):
                self._taken_by = asking
            with contextlib.suppress(OSError):  # a full disk: the lock itself holds on
                self._write(count)

    def _write(self, count: int) -> None:
        text = json.dumps({**self._holder, "beat": count}) + "\n"
        os.pwrite(self._descriptor, text.encode(), 0)
        os.ftruncate(self._descriptor, len(text))
        os.fsync(self._descriptor)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[Lock]:
    """Hold an existing folder against every other process that would write into it.

    Raises
    ------
    InputError
        If another process holds it; the message names it.
    """
    me = _this_process()
    lock = Lock(folder, _acquire(folder, me), me)
    try:
        yield lock
    finally:
        lock.release()


def read_holder(path: Path) -> dict[str, Any] | None:
    """Who holds a lock, by its file: host, pid, job, restart, since, beat; None if nobody or unreadable."""
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return holder if isinstance(holder, dict) and {"host", "pid", "job", "restart", "since"} <= holder.keys() else None


def read_lock(folder: Path) -> dict[str, Any] | None:
    """Who holds a folder, or held it when it crashed."""
    return read_holder(folder / NAME)


def is_held(folder: Path) -> bool:
    """Whether a process of this machine writes into a folder now; asks without taking it."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def describe(holder: dict[str, Any] | None) -> str:
    """'job 123 (process 4711 on node1, since 2026-11-22 14:03:00)'"""
    if holder is None:
        return "another process"
    where = f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    return f"job {holder['job']} ({where})" if holder["job"] else where


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "job": cluster.this_job(),
            "restart": cluster.restarts(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _is_later_life(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both are lives of one SLURM job and `one` was started after `other`."""
    return one["job"] is not None and one["job"] == other["job"] and one["restart"] > other["restart"]


def _acquire(folder: Path, me: dict[str, Any]) -> int:
    """The open and locked ``.lock`` of a folder."""
    path, end = folder / NAME, time.monotonic() + TAKEOVER_SECONDS
    asked = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if _has_flock(descriptor) and _is_same_file(descriptor, path):
            holder = read_holder(path)
            if holder is None or holder["host"] == me["host"] or not _lives(path, holder):
                if asked:
                    (folder / NEXT).unlink(missing_ok=True)
                return descriptor
        else:
            holder = read_holder(path)
        os.close(descriptor)
        if not path.exists():  # released meanwhile
            continue
        if holder is None or not _is_later_life(me, holder) or time.monotonic() > end:
            if holder is None and time.monotonic() < end - TAKEOVER_SECONDS + PATIENCE_SECONDS:
                time.sleep(POLL_SECONDS)  # its holder is just about to write its name
                continue
            raise InputError(f"{folder}: {describe(holder)} is writing into it; wait for it, or end it with "
                             f"{_how_to_end(holder)}")
        if not asked:
            print(f"{folder}: an earlier life of this job still has it: {describe(holder)}; it is asked to give way",
                  file=sys.stderr, flush=True)
            (folder / NEXT).write_text(json.dumps(me) + "\n")
            asked = True
        time.sleep(POLL_SECONDS)


def _has_flock(descriptor: int) -> bool:
    """Lock an open file; also true on a file system without such locks, where the beats alone guard."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name: its last holder deletes it."""
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _lives(path: Path, holder: dict[str, Any]) -> bool:
    """Watch the lock of a process on another node: whether it still counts."""
    print(f"{path.parent}: {describe(holder)} wrote into it last; waiting {PATIENCE_SECONDS:.0f} s to see whether it "
          "lives", file=sys.stderr, flush=True)
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        time.sleep(POLL_SECONDS)
        now = read_holder(path)
        if now is not None and now != holder:
            return True
        if not path.exists():
            return False
    return False


def _how_to_end(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "'fuser' on that folder's .lock"
    return f"'scancel {holder['job']}'" if holder["job"] else f"'kill {holder['pid']}' on {holder['host']}"
