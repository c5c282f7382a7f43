"""A newcomer: a process that asks for a lock which another process may hold. `hpc_vsr.system.lock` lists the states."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path

from hpc_vsr.system import slurm
from hpc_vsr.system.errors import Failed, InputError
from hpc_vsr.system.files import write_text
from hpc_vsr.system.lock_holder import (
    PATIENCE_SECONDS,
    Holder,
    format_holder,
    is_same_file,
    read_holder,
    request_path,
    write_holder,
)

TAKEOVER_SECONDS = 300.0  # time for the earlier life of a job to end its step and give way
ENDING_SECONDS, ENDING_POLL_SECONDS = 60.0, 3.0  # time for a cancelled job to save what it has
SETTLE_SECONDS = 1.0  # without flock: time for two that came at once to see who wrote last
POLL_SECONDS = 0.2


class Held(InputError):
    """The error for a lock whose holder will not give way."""


class Newcomer:
    """A process that is trying to get the lock.

    Parameters
    ----------
    path : Path
        The lock file; it need not exist.
    me : Holder
    """

    def __init__(self, path: Path, me: Holder):
        self.path, self.me = path, me
        self.started = time.monotonic()
        self.asked = False
        self.dead: Holder | None = None  # a holder whose number stood still

    def acquire(self) -> int:
        """Return the descriptor of the open and locked file; raise `InputError` if the holder will not give way."""
        try:
            while True:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
                if self._try_once(descriptor):
                    return descriptor
                os.close(descriptor)
                time.sleep(POLL_SECONDS)
        finally:
            if self.asked:
                request_path(self.path).unlink(missing_ok=True)

    def _try_once(self, descriptor: int) -> bool:
        """Return whether the open file is now locked by this process."""
        locked = try_flock(descriptor)
        if not is_same_file(descriptor, self.path):  # its last holder has just deleted it
            return False
        holder = read_holder(self.path)
        # taken, but the file names nobody: its holder is about to write its name
        if locked is False and holder is None:
            if time.monotonic() - self.started < PATIENCE_SECONDS:
                return False
            raise Held(f"{self.path.parent}: another process is writing into it; 'fuser {self.path}' names it")
        # on one host flock is reliable: if it is free, the process that the file names has ended
        if locked and (holder is None or holder.host == self.me.host):
            return True
        # wait for any other holder, or give up, unless its number or process number shows that it is dead
        if holder is not None and not self._is_dead(holder, locked):
            self._wait_for(holder)
            return False
        if locked is False:  # the file system keeps the flock of a dead node: delete the file and make a new one
            self.path.unlink(missing_ok=True)
            return False
        return bool(locked) or self._take_without_flock(descriptor)

    def _is_dead(self, holder: Holder, locked: bool | None) -> bool:
        """Return whether a holder is known to be dead; watch its number if it is on another host."""
        is_here = holder.host == self.me.host
        if is_here and (locked is False or holder.is_alive):
            return False
        if is_here or (self.dead is not None and self.dead == holder):
            return True
        if self.me.is_later_life_of(holder):
            self._ask_to_give_way(holder)
        if stands_still(self.path, holder):
            self.dead = holder
        return False  # the next try decides, so that two watchers do not both take the lock

    def _wait_for(self, holder: Holder) -> None:
        """Return if another try is worth it, else raise `InputError`."""
        waited = time.monotonic() - self.started
        if self.dead == holder:
            return
        if self.me.is_later_life_of(holder) and waited < TAKEOVER_SECONDS:
            self._ask_to_give_way(holder)
        elif waited < ENDING_SECONDS and _is_ending(holder):
            time.sleep(ENDING_POLL_SECONDS)
        else:
            raise Held(f"{self.path.parent}: {holder} is writing into it; wait for it, or end it with "
                             f"{holder.command_to_end(self.me)}")

    def _ask_to_give_way(self, holder: Holder) -> None:
        """Ask an earlier life of this job, in ``.lock.next``, to give way."""
        if not self.asked:
            print(f"{self.path.parent}: asked an earlier life of this job to give way: {holder}", file=sys.stderr,
                  flush=True)
            write_text(request_path(self.path), format_holder(self.me))
            self.asked = True

    def _take_without_flock(self, descriptor: int) -> bool:
        """Write the own name and return whether it is still there a moment later."""
        write_holder(descriptor, self.me)
        time.sleep(SETTLE_SECONDS)
        found = read_holder(self.path)
        return is_same_file(descriptor, self.path) and found is not None and found.same_holder(self.me)


def try_flock(descriptor: int) -> bool | None:
    """Try to lock a file: True if locked, False if another process has it, None if the file system has no flock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def stands_still(path: Path, holder: Holder) -> bool:
    """Watch the number of a holder on another node, and return whether it stands still for `PATIENCE_SECONDS`.

    The time that the reads take does not count, because they hang while a file server is away. A read that fails counts
    as an unchanged number.
    """
    print(f"{path.parent}: {holder} wrote into it last; waiting {PATIENCE_SECONDS:.0f} s to see whether it lives",
          file=sys.stderr, flush=True)
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


def _is_ending(holder: Holder) -> bool:
    """Return whether SLURM is ending the holder's job."""
    if holder.job is None or not slurm.has_slurm():
        return False
    try:
        return slurm.state_of(holder.job) not in slurm.ACTIVE_STATES
    except Failed:
        return False
