"""Reads frames, and rows of frames, of a shard without HDF5."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hpc_vsr.data.shards import Planes, locate_planes
from hpc_vsr.system.errors import InputError

MOST_OPEN = 256  # files at a time; a process may usually open 1,024 in all


class ShardReader:
    """Frames of one shard by their number in the source; each process opens the file at first use.

    Frames lie in a shard as plain bytes, so rows are read directly from the file. A patch costs only its rows, not its
    frame.

    Parameters
    ----------
    path : Path
    start, stop : int
        Frames of the source that the shard holds.
    """

    def __init__(self, path: Path, start: int, stop: int):
        self.path, self.start, self.stop = path, start, stop
        self._planes: dict[str, Planes] | None = None
        self._file: BinaryIO | None = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_file": None, "_planes": None}  # a handle must not travel to another process

    def lr(self, start: int, stop: int, rows: slice = slice(None)) -> np.ndarray:
        """Return rows of the LR frames start..stop-1 of the source, (stop - start, C, rows, w)."""
        return self._read("lr", start, stop, rows)

    def hr(self, start: int, stop: int, rows: slice = slice(None)) -> np.ndarray:
        """Return rows of the HR frames start..stop-1, (stop - start, C, rows, W); NaN where a channel had no value."""
        frames = self._read("hr", start, stop, rows)
        if "valid" in self._planes:
            valid = self._read("valid", start, stop, rows)
            frames[~np.broadcast_to(valid, frames.shape)] = np.nan
        return frames

    def _open(self) -> int:
        """Return its file descriptor.

        Only the readers of a process that were used last keep theirs open, because their number is limited.
        """
        if self._file is None:
            self._file = self.path.open("rb", buffering=0)
        _open_readers.pop(id(self), None)
        _open_readers[id(self)] = self
        if len(_open_readers) > MOST_OPEN:
            oldest = _open_readers.pop(next(iter(_open_readers)))
            oldest._file.close()
            oldest._file = None
        return self._file.fileno()

    def _read(self, name: str, start: int, stop: int, rows: slice) -> np.ndarray:
        if self._planes is None:
            self._planes = locate_planes(self.path)
        descriptor = self._open()
        planes = self._planes[name]
        channels, height, width = planes.shape
        top, bottom, _ = rows.indices(height)
        read = np.empty((stop - start, channels, bottom - top, width), planes.dtype)
        row = width * planes.dtype.itemsize
        for frame, index in zip(read, range(start - self.start, stop - self.start), strict=True):
            if index not in planes.offsets:
                frame[:] = True  # a mask is stored only from the first gap on
                continue
            for channel in range(channels):
                where = planes.offsets[index] + (channel * height + top) * row
                if os.preadv(descriptor, [frame[channel]], where) != frame[channel].nbytes:
                    raise InputError(f"{self.path}: is too short; run the preprocessing again")
        return read


_open_readers: dict[int, ShardReader] = {}  # ordered by last use
