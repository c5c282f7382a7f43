"""The interface of a source of frames, which gives any run of its frames exactly, without reading the others.

`video_source` (PyAV), `image_source` (a folder of PNG, TIFF or JPEG files) and `field_source` (one variable of a
NetCDF, HDF5 or Zarr file) each have one function ``open_*`` that checks its input and returns an object of this
interface.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np


class Source(Protocol):
    """A video, an image sequence or a field, indexed by frame.

    Attributes
    ----------
    files : list of Path
        Files that it is read from, in a fixed order; their bytes identify the source.
    num_frames, height, width : int
    channels : tuple of str
        ("Y",), ("R", "G", "B") or the name of the variable.
    dtype : str
        "uint8" (values 0..255) or "float32" (physical units).
    description : dict
        Other facts for a reader of the data set (JSON values): codec, colour matrix, units, ...
    """

    files: list[Path]
    num_frames: int
    height: int
    width: int
    channels: tuple[str, ...]
    dtype: str
    description: dict

    def read(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield the frames start..stop-1 in order.

        Each is a (C, H, W) array without NaN, and a mask: None, or a (H, W) bool array that is False where the value
        was missing and has been filled.
        """
        ...
