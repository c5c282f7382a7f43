"""A lock that lets only one process write into a folder, across nodes; it names its holder and opens after a crash.

The file ``.lock`` names its holder. The operating system's lock on that file (flock) ends with the process. Not every
cluster's file system shares flock between nodes, or supports it, so the holder also keeps counting up a number in the
file; a lock whose number stands still belongs to nobody. A process wrongly presumed dead notices, before its next
write, that the lock has changed owner. SLURM may start a job again while its earlier life still runs on a node that
SLURM has lost contact with; the later life then asks for the folder in ``.lock.next``, and the earlier one gives way.

The states of the lock, and what a newcomer does in each ("none": the file system has no flock):

    flock        the file names                         newcomer
    -----------  -------------------------------------  ------------------------------------------------------------
    free         nobody, or a process of this host      takes the lock
    taken        nobody yet                             tries again for 20 s, then gives up
    taken, none  a live process of this host            gives up, but waits up to 60 s for a job that SLURM is ending
    any          another host, number counts up         gives up, but waits up to 60 s for a job that SLURM is ending
    any          a live earlier life of this job        asks it in .lock.next to give way and waits up to 300 s
    free         another host, number still for 20 s    takes the lock
    taken        another host, number still for 20 s    deletes the file with its dead flock, then takes a new one
    none         nobody, or a dead process              writes its name and takes the lock if it is there 1 s later
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
PATIENCE_SECONDS = 20.0  # if the number stands still for four beats, the process is dead
TAKEOVER_SECONDS = 300.0  # time for the earlier life of a job to end its step and give way
ENDING_SECONDS, ENDING_POLL_SECONDS = 60.0, 3.0  # time for a cancelled job to save what it has
SETTLE_SECONDS = 1.0  # without flock: time for two that came at once to see who wrote last
POLL_SECONDS = 0.2


class Lock:
    """The lock of this process while `only_writer` lasts; a thread keeps its number counting."""

    def __init__(self, path: Path, descriptor: int, me: dict[str, Any]):
        self.path, self._descriptor, self._me = path, descriptor, me
        self._taken_by: dict[str, Any] | None = None
        self._last_beat = time.monotonic()
        self._ended = threading.Event()
        write_holder(descriptor, me, 0)
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `Failed` if another process has taken over the folder; call it before writing."""
        if time.monotonic() - self._last_beat > PATIENCE_SECONDS:  # this process slept and may be presumed dead
            self._look()
        if self._taken_by is not None:
            raise Failed(f"{self.path.parent}: {describe(self._taken_by)} has taken over; this process ends")

    def release(self) -> None:
        """Stop counting and delete the file, unless it belongs to another process by now."""
        self._ended.set()
        self._thread.join()
        if self._is_mine():
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _beat(self) -> None:
        """Count up the number in the file until the lock is released or taken over."""
        count = 0
        while not self._ended.wait(BEAT_SECONDS):
            count += 1
            with contextlib.suppress(OSError):  # a full disk or a server that is away does not end the lock
                self._look()
                if self._taken_by is not None:
                    return
                write_holder(self._descriptor, self._me, count)
                self._last_beat = time.monotonic()

    def _look(self) -> None:
        """Note who has taken over, or asks to, if anyone."""
        # give way to a later life of this job; anyone else must have presumed this process dead
        asking = read_holder(_next(self.path))
        if asking is not None and is_later_life(asking, self._me):
            self._taken_by = asking
        elif not self._is_mine():
            self._taken_by = read_holder(self.path) or {**self._me, "host": "another node"}

    def _is_mine(self) -> bool:
        return _is_same_file(self._descriptor, self.path) and is_one(read_holder(self.path) or self._me, self._me)


@contextlib.contextmanager
def only_writer(folder: Path, name: str = NAME) -> Iterator[Lock]:
    """Keep every other process from writing into an existing folder while the block lasts.

    Parameters
    ----------
    folder : Path
    name : str
        Name of the lock file; locks with different names are independent.

    Raises
    ------
    InputError
        If another process holds the lock (the message names it), or the folder cannot be written.
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
    """A newcomer: a process that is trying to get the lock."""

    def __init__(self, path: Path, me: dict[str, Any]):
        self.path, self.me = path, me
        self.started = time.monotonic()
        self.asked = False
        self.dead: dict[str, Any] | None = None  # a holder whose number stood still

    def acquire(self) -> int:
        """Return the descriptor of the open and locked file."""
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
        """Try once; raise `InputError` if the holder is alive and will not give way."""
        locked = _flock(descriptor)
        if not _is_same_file(descriptor, self.path):  # its last holder has just deleted it
            return False
        holder = read_holder(self.path)
        # taken, but by nobody yet
        if locked is False and holder is None:  # its holder is about to write its name
            if time.monotonic() - self.started < PATIENCE_SECONDS:
                return False
            raise InputError(f"{self.path.parent}: another process is writing into it; 'fuser {self.path}' names it")
        # on one host flock is reliable: if it is free, the process that the file names has ended
        if locked and (holder is None or holder["host"] == self.me["host"]):
            return True
        # wait for any other holder, or give up, unless its number or process number shows that it is dead
        if holder is not None and not self._is_dead(holder, locked):
            self._wait_for(holder)
            return False
        if locked is False:  # the file system keeps the flock of a dead node: delete the file and make a new one
            self.path.unlink(missing_ok=True)
            return False
        return bool(locked) or self._settle(descriptor)

    def _is_dead(self, holder: dict[str, Any], locked: bool | None) -> bool:
        """Return whether a holder is known to be dead; watch its number if it is on another host."""
        here = holder["host"] == self.me["host"]
        if here and (locked is False or is_alive(holder["pid"])):
            return False
        if here or (self.dead is not None and self.dead == holder):
            return True
        if is_later_life(self.me, holder):
            self._ask(holder)
        if _stands_still(self.path, holder):
            self.dead = holder
        return False  # the next try decides, so that two watchers do not both take the lock

    def _wait_for(self, holder: dict[str, Any]) -> None:
        """Return if another try is worth it, else raise `InputError`."""
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
        """Ask an earlier life of this job, in ``.lock.next``, to give way."""
        if not self.asked:
            print(f"{self.path.parent}: an earlier life of this job had it: {describe(holder)}; it is asked to give "
                  "way", file=sys.stderr, flush=True)
            write_text(_next(self.path), json.dumps(self.me) + "\n")
            self.asked = True

    def _settle(self, descriptor: int) -> bool:
        """Without flock, write the own name and return whether it is still there a moment later."""
        write_holder(descriptor, self.me, 0)
        time.sleep(SETTLE_SECONDS)
        return _is_same_file(descriptor, self.path) and is_one(read_holder(self.path) or {}, self.me)


def remove_left(folder: Path, name: str = NAME) -> None:
    """Delete the lock of a process that died; keep one that is held or that may not be deleted."""
    with contextlib.suppress(InputError, OSError):
        if (folder / name).exists():
            with only_writer(folder, name):
                pass


def read_lock(folder: Path) -> dict[str, Any] | None:
    """Return who holds the lock of a folder, or held it at a crash."""
    return read_holder(folder / NAME)


def is_held(folder: Path) -> bool:
    """Return whether a process of this machine holds the lock of a folder now, without taking the lock."""
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
    """Return whether SLURM is ending the holder's job."""
    if holder["job"] is None or not cluster.has_slurm():
        return False
    try:
        return cluster.state_of(holder["job"]) not in cluster.GOING
    except Failed:
        return False


def _flock(descriptor: int) -> bool | None:
    """Try to lock a file: True if locked, False if another process has it, None if the file system has no flock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Return whether the open file is still the one with that name."""
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _stands_still(path: Path, holder: dict[str, Any]) -> bool:
    """Watch the number of a holder on another node, and return whether it stands still.

    Time in which the file could not be read does not count.
    """
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
