"""One writer for a folder, over processes and nodes: a lock that says who holds it and that opens after a crash.

The file ``.lock`` names its holder. The operating system's lock on it (flock) ends with its process; not every
cluster's file system carries that to other nodes, or has it at all, so the holder also counts up a number in the file,
and a lock whose number stands still is nobody's. Whoever was taken for dead sees that the file names another, or is
another, before it writes again. When SLURM starts a job again although its earlier life still runs, on a node that it
lost sight of, the later life asks for the folder in ``.lock.next`` and the earlier one gives way.
"""

from __future__ import annotations

import contextlib
import errno
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

from hpc_vsr.system import slurm as cluster
from hpc_vsr.system.errors import Failed, InputError
from hpc_vsr.system.files import write_text
from hpc_vsr.system.holder import (
    describe,
    how_to_end,
    is_alive,
    is_later_life,
    is_one,
    read_holder,
    this_process,
    write_holder,
)

NAME = ".lock"
BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 20.0  # a number that stood still for four beats is a dead process's
TAKEOVER_SECONDS = 300.0  # for the earlier life of a job to end its step and give way
ENDING_SECONDS, ENDING_POLL_SECONDS = 60.0, 3.0  # for a job that was cancelled to save what it has
SETTLE_SECONDS = 1.0  # without flock: for two that came at once to see who wrote last
POLL_SECONDS = 0.2


class Lock:
    """Held by this process while `only_writer` lasts."""

    def __init__(self, path: Path, descriptor: int, me: dict[str, Any]):
        self.path, self._descriptor, self._me = path, descriptor, me
        self._taken_by: dict[str, Any] | None = None
        self._last_beat = time.monotonic()
        self._ended = threading.Event()
        write_holder(descriptor, me, 0)
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `Failed` if the folder is another process's by now; call it before writing."""
        if time.monotonic() - self._last_beat > PATIENCE_SECONDS:  # this process slept, and may have been given up
            self._look()
        if self._taken_by is not None:
            raise Failed(f"{self.path.parent}: {describe(self._taken_by)} has taken over; this process ends")

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        if self._is_mine():
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _beat(self) -> None:
        count = 0
        while not self._ended.wait(BEAT_SECONDS):
            count += 1
            with contextlib.suppress(OSError):  # a full disk, a server that is away: the lock itself holds on
                self._look()
                if self._taken_by is not None:
                    return
                write_holder(self._descriptor, self._me, count)
                self._last_beat = time.monotonic()

    def _look(self) -> None:
        asking = read_holder(_next(self.path))
        if asking is not None and is_later_life(asking, self._me):
            self._taken_by = asking
        elif not self._is_mine():
            self._taken_by = read_holder(self.path) or {**self._me, "host": "another node"}

    def _is_mine(self) -> bool:
        return _is_same_file(self._descriptor, self.path) and is_one(read_holder(self.path) or self._me, self._me)


@contextlib.contextmanager
def only_writer(folder: Path, name: str = NAME) -> Iterator[Lock]:
    """Hold an existing folder against every other process that would write into it.

    Parameters
    ----------
    folder : Path
    name : str
        Of the lock's file: what is written under another name is guarded on its own.

    Raises
    ------
    InputError
        If another process holds it, whom the message names, or the folder cannot be written.
    """
    me = this_process()
    path = folder / name
    try:
        lock = Lock(path, _Waiter(path, me).acquire(), me)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path}: is a link to another file; delete it") from None
        raise InputError(f"{error.filename or path}: cannot be written: {error.strerror}; mend that or choose another "
                         "folder") from None
    try:
        yield lock
    finally:
        lock.release()


class _Waiter:
    """A process that wants the lock."""

    def __init__(self, path: Path, me: dict[str, Any]):
        self.path, self.me = path, me
        self.started = time.monotonic()
        self.asked = False
        self.dead: dict[str, Any] | None = None  # a holder whose number stood still

    def acquire(self) -> int:
        """The open and locked file."""
        try:
            while True:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
                if self._take(descriptor):
                    return descriptor
                os.close(descriptor)
                time.sleep(POLL_SECONDS)
        finally:
            if self.asked:
                _next(self.path).unlink(missing_ok=True)

    def _take(self, descriptor: int) -> bool:
        """One try. Raises `InputError` if there is a living holder who will not give way."""
        locked = _flock(descriptor)
        if not _is_same_file(descriptor, self.path):  # its last holder has just deleted it
            return False
        holder = read_holder(self.path)
        if locked is False and holder is None:  # its holder is about to write its name
            if time.monotonic() - self.started < PATIENCE_SECONDS:
                return False
            raise InputError(f"{self.path.parent}: another process is writing into it; 'fuser {self.path}' names it")
        if locked and (holder is None or holder["host"] == self.me["host"]):
            return True
        if holder is not None and not self._is_dead(holder, locked):
            self._wait_for(holder)
            return False
        if locked is False:  # the file system keeps a dead node's lock: leave it that file
            self.path.unlink(missing_ok=True)
            return False
        return bool(locked) or self._settle(descriptor)

    def _is_dead(self, holder: dict[str, Any], locked: bool | None) -> bool:
        here = holder["host"] == self.me["host"]
        if here and (locked is False or is_alive(holder["pid"])):
            return False
        if here or (self.dead is not None and self.dead == holder):
            return True
        if is_later_life(self.me, holder):
            self._ask(holder)
        if _stands_still(self.path, holder):
            self.dead = holder
        return False  # the next try decides, so that two who watched do not both take it

    def _wait_for(self, holder: dict[str, Any]) -> None:
        waited = time.monotonic() - self.started
        if self.dead == holder:
            return
        if is_later_life(self.me, holder) and waited < TAKEOVER_SECONDS:
            self._ask(holder)
        elif waited < ENDING_SECONDS and _is_ending(holder):
            time.sleep(ENDING_POLL_SECONDS)
        else:
            raise InputError(f"{self.path.parent}: {describe(holder)} is writing into it; wait for it, or end it with "
                             f"{how_to_end(holder, self.me)}")

    def _ask(self, holder: dict[str, Any]) -> None:
        if not self.asked:
            print(f"{self.path.parent}: an earlier life of this job had it: {describe(holder)}; it is asked to give "
                  "way", file=sys.stderr, flush=True)
            write_text(_next(self.path), json.dumps(self.me) + "\n")
            self.asked = True

    def _settle(self, descriptor: int) -> bool:
        """Without flock: write the name, and see whether it still stands there a moment later."""
        write_holder(descriptor, self.me, 0)
        time.sleep(SETTLE_SECONDS)
        return _is_same_file(descriptor, self.path) and is_one(read_holder(self.path) or {}, self.me)


def remove_left(folder: Path, name: str = NAME) -> None:
    """Delete the lock of a process that died; one that is held stays, and so does one that may not be deleted."""
    with contextlib.suppress(InputError, OSError):
        if (folder / name).exists():
            with only_writer(folder, name):
                pass


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
        holder = read_lock(folder)
        return holder is not None and holder["host"] == socket.gethostname() and is_alive(holder["pid"])
    finally:
        os.close(descriptor)
    return False


def _next(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def _is_ending(holder: dict[str, Any]) -> bool:
    """Whether SLURM is ending the holder's job."""
    if holder["job"] is None or not cluster.has_slurm():
        return False
    try:
        return cluster.state_of(holder["job"]) not in cluster.GOING
    except Failed:
        return False


def _flock(descriptor: int) -> bool | None:
    """True: locked; False: another has it; None: this file system has no such locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _stands_still(path: Path, holder: dict[str, Any]) -> bool:
    """Watch the number of a holder on another node; time in which the file could not be read does not count."""
    print(f"{path.parent}: {describe(holder)} wrote into it last; waiting {PATIENCE_SECONDS:.0f} s to see whether it "
          "lives", file=sys.stderr, flush=True)
    watched = 0.0
    while watched < PATIENCE_SECONDS:
        time.sleep(POLL_SECONDS)
        if not path.exists():
            return False
        now = read_holder(path)
        if now is not None and now != holder:
            return False
        watched += POLL_SECONDS
    return True
