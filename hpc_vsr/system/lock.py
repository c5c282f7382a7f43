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

What the holder does before each write:

    .lock.next names a later life of its job            ends
    .lock names another process, or is another file     ends and leaves the file alone
    otherwise                                           writes
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from hpc_vsr.system.errors import Failed, InputError
from hpc_vsr.system.lock_holder import (
    PATIENCE_SECONDS,
    Holder,
    is_same_file,
    read_holder,
    request_path,
    this_process,
    write_holder,
)
from hpc_vsr.system.lock_newcomer import Held, Newcomer

__all__ = ["Held", "Lock", "is_held", "only_writer", "read_lock", "remove_left"]
NAME = ".lock"
BEAT_SECONDS = 5.0


class Lock:
    """The lock of this process while `only_writer` lasts; a thread keeps its number counting."""

    def __init__(self, path: Path, descriptor: int, me: Holder):
        self.path, self._descriptor, self._me = path, descriptor, me
        self._taken_by: Holder | None = None
        self._last_beat = time.monotonic()
        self._ended = threading.Event()
        write_holder(descriptor, me)
        self._thread = threading.Thread(target=self._count_up, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `Failed` if another process has taken over the folder; call it before writing."""
        if time.monotonic() - self._last_beat > PATIENCE_SECONDS:  # this process slept and may be presumed dead
            self._note_takeover()
        if self._taken_by is not None:
            raise Failed(f"{self.path.parent}: {self._taken_by} has taken over; this process ends")

    def release(self) -> None:
        """Stop counting and delete the file, unless it belongs to another process by now."""
        self._ended.set()
        self._thread.join()
        if self._is_mine():
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _count_up(self) -> None:
        """Count up the number in the file until the lock is released or taken over."""
        holder = self._me
        while not self._ended.wait(BEAT_SECONDS):
            holder = dataclasses.replace(holder, beat=holder.beat + 1)
            with contextlib.suppress(OSError):  # a full disk or a server that is away does not end the lock
                self._note_takeover()
                if self._taken_by is not None:
                    return
                write_holder(self._descriptor, holder)
                self._last_beat = time.monotonic()

    def _note_takeover(self) -> None:
        """Note which process has taken over or asks to, if any."""
        # give way to a later life of this job; any other process must have presumed this one dead
        asking = read_holder(request_path(self.path))
        if asking is not None and asking.is_later_life_of(self._me):
            self._taken_by = asking
        elif not self._is_mine():
            self._taken_by = read_holder(self.path) or dataclasses.replace(self._me, host="another node")

    def _is_mine(self) -> bool:
        found = read_holder(self.path)
        return is_same_file(self._descriptor, self.path) and (found is None or found.same_holder(self._me))


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
    Held
        If another process holds the lock; it is an `InputError` that names it.
    InputError
        If the folder cannot be written.
    """
    me = this_process()
    path = folder / name
    try:
        lock = Lock(path, Newcomer(path, me).acquire(), me)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path}: is a link to another file; delete it") from None
        raise InputError(f"{error.filename or path}: cannot be written: {error.strerror}; mend that, or choose another "
                         "folder") from None
    try:
        yield lock
    finally:
        lock.release()


def remove_left(folder: Path, name: str = NAME) -> None:
    """Delete the lock of a dead process; keep one that is held or cannot be deleted."""
    with contextlib.suppress(InputError, OSError):
        if (folder / name).exists():
            with only_writer(folder, name):
                pass


def read_lock(folder: Path) -> Holder | None:
    """Return the process that holds the lock of a folder, or held it when it crashed."""
    return read_holder(folder / NAME)


def is_held(folder: Path) -> bool:
    """Return whether a process of this machine holds the lock of a folder; this does not take the lock."""
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
        return holder is not None and holder.is_here and holder.is_alive
    finally:
        os.close(descriptor)
    return False
