"""The holder of a folder's lock, as one line of JSON with a number that the holder keeps counting up."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from hpc_vsr.system import slurm
from hpc_vsr.system.config import as_dict, from_dict

PATIENCE_SECONDS = 20.0  # if the number stands still for four beats, the process is dead


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock or asks for it.

    Attributes
    ----------
    host : str
    pid : int
    job : str or None
        Number of its SLURM job.
    restart : int
        How often SLURM had restarted the job.
    since : str
        Time at which the process asked for the lock.
    beat : int
        Number that a living holder counts up.
    """

    host: str
    pid: int
    job: str | None
    restart: int
    since: str
    beat: int = 0

    def __str__(self) -> str:
        """Return a text such as 'job 123 (process 4711 on node1, since 2026-11-22 14:03:00)'."""
        where = f"process {self.pid} on {self.host}, since {self.since}"
        return f"job {self.job} ({where})" if self.job else where

    @property
    def is_here(self) -> bool:
        """True for a process of this machine."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """True if this machine has a process with that number."""
        return Path(f"/proc/{self.pid}").exists()

    def same_holder(self, other: Holder) -> bool:
        """Return whether both are the same process, whatever their numbers."""
        return dataclasses.replace(self, beat=other.beat) == other

    def is_later_life_of(self, other: Holder) -> bool:
        """Return whether both are lives of the same SLURM job and this one was started after `other`."""
        return self.job is not None and self.job == other.job and self.restart > other.restart

    def command_to_end(self, me: Holder) -> str:
        """Return the command that ends this process: scancel for another job, else kill."""
        if self.job and self.job != me.job:
            return f"'scancel {self.job}'"
        return f"'kill {self.pid}' on {self.host}"


def this_process() -> Holder:
    """Return how this process describes itself in a lock."""
    return Holder(socket.gethostname(), os.getpid(), slurm.this_job(), slurm.restarts(),
                  time.strftime("%Y-%m-%d %H:%M:%S"))


def read_holder(path: Path) -> Holder | None:
    """Return the holder that a lock file names; None if it names nobody or cannot be read."""
    try:
        content = json.loads(path.read_text())
        return from_dict(Holder, content, str(path)) if isinstance(content, dict) else None
    except (OSError, ValueError, RecursionError):  # an InputError is a ValueError
        return None


def write_holder(descriptor: int, holder: Holder) -> None:
    """Write a holder into the open lock file, on disk."""
    text = format_holder(holder)
    os.pwrite(descriptor, text.encode(), 0)
    os.ftruncate(descriptor, len(text))
    os.fsync(descriptor)


def format_holder(holder: Holder) -> str:
    return json.dumps(as_dict(holder)) + "\n"


def request_path(path: Path) -> Path:
    """Return the file in which a later life of the holder's job asks for the lock."""
    return path.with_name(f"{path.name}.next")


def is_same_file(descriptor: int, path: Path) -> bool:
    """Return whether the open file is still the one with that name."""
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
