"""Reads the frames of a field: each chunk of a file once, decoded, with NaN where a value is missing."""

from __future__ import annotations

import bisect
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpc_vsr.media.field_missing import Missing, number_of_text
from hpc_vsr.system.errors import InputError

PACKING = ("scale_factor", "add_offset")
LEAST_BLOCK, LARGEST_BLOCK = 4 << 20, 256 << 20  # bytes that are read at once, as stored
DAMAGED = (OSError, RuntimeError, ValueError, TypeError)  # raised by back ends for damaged data


def as_stored(path: Path, variable: str | None = None) -> dict:
    """Return the arguments with which `xarray.open_dataset` leaves the values of a variable as they are stored.

    `variable` is the name in the file, or in its group. In a Zarr store of format 2, variables whose fill value of 0
    is no attribute are left as they are too, because xarray would take their zeros for missing. A variable in seconds
    or days is no time stamp.
    """
    mask = dict.fromkeys(zero_filled(path), False)
    if variable is not None:
        mask[variable] = False
    return {"decode_timedelta": False, **({"mask_and_scale": mask} if mask else {})}


def zero_filled(path: Path) -> list[str]:
    """Return the variables of a Zarr store of format 2 whose fill value is 0 and that have no attribute `_FillValue`.

    Zeros in them are data: 0 is what the library fills in if nothing is chosen.
    """
    found = []
    for array in path.rglob(".zarray") if path.is_dir() else ():
        attributes = array.with_name(".zattrs")
        try:
            fill = json.loads(array.read_text(encoding="utf-8")).get("fill_value")
            given = json.loads(attributes.read_text(encoding="utf-8")) if attributes.exists() else {}
        except (ValueError, OSError, AttributeError):  # the library says what is wrong with it
            continue
        if fill == 0 and not isinstance(fill, bool) and "_FillValue" not in given:
            found.append(array.parent.name)
    return found


class Frame(NamedTuple):
    """A decoded frame.

    Attributes
    ----------
    values : (h, w) array
        float32, float64 or whole numbers, as the file's packing asks for.
    missing : (h, w) bool array or None
        Where a value is missing; None if none is.
    rules : list of (name, number of cells, whether it is plain)
        What found the missing values; see `hpc_vsr.media.field_missing.Missing.find`.
    """

    values: np.ndarray
    missing: np.ndarray | None
    rules: list[tuple[str, int, bool]]


class Decoder:
    """Decodes one variable of one file: unsigned types, packing and missing values.

    Parameters
    ----------
    array : xarray.DataArray
        As stored, with all its attributes; see `as_stored`.
    path : Path
    zero_is_data : bool
    default : int, optional
        See `Missing`.
    """

    def __init__(self, array, path: Path, zero_is_data: bool, default=None):
        attributes = dict(array.attrs)
        self._unsigned = str(attributes.get("_Unsigned", "")).lower()
        self._packing = {name: _packing_number(attributes[name], name, path) for name in PACKING if name in attributes}
        stored = self._with_sign(np.empty(0, array.dtype)).dtype
        step = float(self._packing.get("scale_factor", 1.0)) if self._packing else 0.0
        self.missing = Missing(attributes, stored, step, zero_is_data, default)

    def __call__(self, stored: np.ndarray) -> Frame:
        """Decode (h, w) values as they are stored."""
        stored = self._with_sign(stored)
        values = self._unpack(stored)
        missing, rules = None, []
        for name, mask, is_plain in self.missing.find(stored, values):
            rules.append((name, int(mask.sum()), is_plain))
            missing = mask if missing is None else missing | mask
        return Frame(values, missing, rules)

    def _with_sign(self, stored: np.ndarray) -> np.ndarray:
        """Return whole numbers with the sign that `_Unsigned` gives to their bytes."""
        kinds = {"true": ("i", "u"), "false": ("u", "i")}.get(self._unsigned)
        if kinds is None or stored.dtype.kind != kinds[0]:
            return stored
        return stored.view(stored.dtype.str.replace(*kinds))

    def _unpack(self, stored: np.ndarray) -> np.ndarray:
        if not self._packing:
            return stored
        import xarray  # it chooses the type of float

        packed = xarray.Dataset({"values": (("y", "x"), stored, self._packing)})
        return xarray.decode_cf(packed, decode_times=False, decode_timedelta=False)["values"].values


class FieldFrames:
    """The frames of one variable in one or more files, by number; it keeps the block that was read last.

    Parameters
    ----------
    paths : sequence of Path
    arrays : sequence of xarray.DataArray
        For each file the variable over (time, y, x), lazily, and as stored; see `as_stored`.
    name : str
        Name of the variable, for messages.
    defaults : sequence of int or None
        For each file what the library fills in where nothing was written; see `Missing`.

    Attributes
    ----------
    decoders : list of Decoder
        One for each file.
    num_frames : int
    block_bytes : int
        Most bytes of a block: of the frames that one chunk of the file spans, as far as 256 MB hold them.
    """

    def __init__(self, paths: Sequence[Path], arrays: Sequence, name: str, defaults: Sequence):
        self.paths, self.arrays, self.name = list(paths), list(arrays), name
        # zarr gives its fill value as an attribute
        self.zero_filled = [str(array.name) in zero_filled(path) for path, array in zip(paths, arrays, strict=True)]
        self.decoders = [Decoder(array, path, zero, default) for path, array, zero, default in
                         zip(paths, arrays, self.zero_filled, defaults, strict=True)]
        self._starts = [0, *itertools.accumulate(len(array) for array in arrays)]
        self.num_frames = self._starts[-1]
        self.block_bytes = max((block_length(array) * _frame_bytes(array) for array in arrays), default=0)
        self._block: tuple[int, range, np.ndarray | None] = (-1, range(0), None)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_block": (-1, range(0), None)}  # other ranks get no frames

    def where(self, index: int) -> tuple[int, int]:
        """Return the number of the file that holds a frame, and the number of the frame in it."""
        part = bisect.bisect_right(self._starts, index) - 1
        return part, index - self._starts[part]

    def place(self, index: int) -> str:
        """Return where a frame is, for messages."""
        part, inside = self.where(index)
        return f"{self.paths[part]}: {self.name}", f"in frame {inside}"

    def frame(self, index: int) -> Frame:
        """Return a frame, decoded; `InputError` if it cannot be read."""
        part, inside = self.where(index)
        return self.decoders[part](self._stored(part, inside))

    def _stored(self, part: int, inside: int) -> np.ndarray:
        held, frames, block = self._block
        if held != part or inside not in frames:
            self._block = (-1, range(0), None)  # its memory is free before the next one is read
            length, total = block_length(self.arrays[part]), len(self.arrays[part])
            start = inside // length * length
            frames = range(start, min(start + length, total))
            try:
                block = read_block(self.arrays[part], frames)
            except DAMAGED:
                frames = range(inside, inside + 1)  # which frame of them is damaged?
                block = self._read_one(part, inside)
            self._block = (part, frames, block)
        return block[inside - frames.start]

    def _read_one(self, part: int, inside: int) -> np.ndarray:
        try:
            return read_block(self.arrays[part], range(inside, inside + 1))
        except DAMAGED as error:
            raise InputError(f"{self.paths[part]}: frame {inside} of {self.name} cannot be read "
                             f"({str(error).splitlines()[0]}); the file is damaged, copy it again") from None


def read_block(array, frames: range) -> np.ndarray:
    """Return consecutive frames of a lazy array as they are stored."""
    return array[frames.start : frames.stop].values


def block_length(array) -> int:
    """Return how many frames are read at once: those that a chunk spans, or some small ones, within 256 MB."""
    one = _frame_bytes(array)
    chunk = (array.encoding.get("preferred_chunks") or {}).get(array.dims[0], 1)
    chunk = min(max(1, int(chunk)), max(1, len(array)))
    if chunk * one > LARGEST_BLOCK:
        return max(1, LARGEST_BLOCK // one)
    return chunk * max(1, LEAST_BLOCK // (chunk * one))


def _frame_bytes(array) -> int:
    return max(1, int(np.prod(array.shape[1:])) * array.dtype.itemsize)


def _packing_number(value, name: str, path: Path):
    """Return a factor or an offset; text is read as a number, because some programs write it so."""
    if isinstance(value, (bytes, str)):
        text = value.decode(errors="replace") if isinstance(value, bytes) else value
        try:
            return np.float64(number_of_text(text))
        except ValueError:
            raise InputError(f"{path}: {name} is {text!r}, which is no number; correct this attribute") from None
    if np.size(value) != 1:
        raise InputError(f"{path}: {name} has {np.size(value)} numbers and not one; correct this attribute")
    return value
