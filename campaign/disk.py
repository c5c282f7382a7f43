"""Faults of a file system, to be planted in a process."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from sandbox import FIRED
from waiting import wait_at_most

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
ANSWERS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE)


class AtOperation:
    """A fault at one of the moments when a process touches a file below a folder.

    Opening for writing, renaming, removing, making a folder, and flushing to disk are counted in the order in which
    they come; before the one of that number, the process is killed or the file system answers with an error.
    """

    def __init__(self, folder: Path, number: int, answer: int | None = None, counter: Path | None = None):
        self.folder, self.number, self.answer, self.counter = str(folder), number, answer, counter
        self.count, self._busy = 0, False

    def __call__(self) -> None:
        """To be called in the process itself."""
        real_fsync = os.fsync

        def fsync(descriptor: int) -> None:
            self._touch(Path(f"/proc/self/fd/{descriptor}").readlink())
            real_fsync(descriptor)

        os.fsync = fsync
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING:
                self._touch(path)
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            self._touch(arguments[0])

    def _touch(self, path) -> None:
        if self._busy or not isinstance(path, (str, bytes, os.PathLike)):
            return
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - `resolve` would ask the file system
        if not name.startswith(self.folder) or ".said-" in name or "count" in name:
            return
        self.count += 1
        if self.counter is not None:
            self._busy = True
            self.counter.write_text(str(self.count))
            self._busy = False
        if self.count == self.number:
            self._busy = True
            Path(self.folder, FIRED).touch()
            self._busy = False
            if self.answer is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(self.answer, os.strerror(self.answer), name)


def limit_file_size(num_bytes: int) -> Callable[[], None]:
    """Writes beyond so many bytes of a file fail, also those inside HDF5 and FFmpeg, as on a full disk."""

    def fault() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))

    return fault


@contextlib.contextmanager
def small_disk(folder: Path, num_bytes: int) -> Iterator[Callable[[], None]]:
    """A file system of that size; gives a function that makes it large. `PermissionError` without the right to."""
    folder.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", f"size={num_bytes // 1024 + 1}k", "tmpfs", str(folder))
    try:
        yield lambda: _mount("-o", "remount,size=256m", str(folder))
    finally:
        wait_at_most(5, lambda: os.spawnlp(os.P_WAIT, "umount", "umount", str(folder)) == 0)


def _mount(*arguments: str) -> None:
    if os.geteuid() != 0 or os.spawnlp(os.P_WAIT, "mount", "mount", *arguments) != 0:
        raise PermissionError("mount")


def free_space_is_not_seen() -> None:
    """The check before the start sees room that is not there, as on a disk that fills up while a job runs."""
    real = shutil.disk_usage
    shutil.disk_usage = lambda path: real(path)._replace(free=1 << 50)
