"""Shards: HDF5 files of frames, with 5-frame stacks as a view of them. The only file that imports h5py.

docs/formats.md describes the layout. The bytes of a shard depend only on its frames and attributes: it holds no time
stamp, rank or path.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from hpc_vsr.data.info import FORMAT_VERSION, ShardEntry
from hpc_vsr.data.splits import REACH, WINDOW, ShardPlan
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import partial_path, sha256, write_whole

DAMAGED = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError)  # raised by h5py for a damaged file
Numbers = float | list[float]


def write_shard(path: Path, plan: ShardPlan, frames: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None]],
                attributes: dict, by_channel: bool = False) -> ShardEntry:
    """Write one shard under a temporary name, check it by reading it back, and rename it.

    Parameters
    ----------
    path : Path
    plan : ShardPlan
        Plan of the shard: the frames that it holds.
    frames : iterable of (lr, hr, valid)
        ``plan.num_frames`` items: (C, h, w), (C, H, W) of one dtype, and None or an (H, W) or (C, H, W) bool mask that
        is False where the source had no value.
    attributes : dict
        Text and numbers for readers that have only the shard.
    by_channel : bool
        Whether the lowest and highest HR values are noted for each channel, because these are several variables.

    Returns
    -------
    ShardEntry
        Its entry in dataset.json.
    """
    with write_whole(path) as temporary:
        digest, low, high = _write(temporary, plan, frames, attributes, by_channel)
        if _digest_frames(temporary) != digest:
            raise OSError(f"{path}: the shard cannot be read back after writing; check the file system")
    return _entry(path, plan, low, high, sha256(path))


def read_entry(path: Path, plan: ShardPlan, attributes: dict, recorded_sha256: str | None = None
               ) -> ShardEntry | None:
    """Check a finished shard and return its entry; None if it must be written again.

    If dataset.json has a checksum, the whole file is compared with it first, because HDF5 can loop for ever in a
    damaged heap. Then every byte of the frames is compared with the checksum inside the file, and the frame numbers and
    views with the frames.
    """
    try:
        checksum = sha256(path)
        if recorded_sha256 not in (None, checksum):
            return None
        with h5py.File(path, "r", locking=False) as file:
            if any(file.attrs.get(key) != value for key, value in _all_attributes(plan, attributes).items()):
                return None
            digest, low, high = file.attrs["frames_sha256"], file.attrs["hr_min"], file.attrs["hr_max"]
        if _digest_frames(path) != digest or not _views_are_right(path, plan):
            return None
    except (InputError, *DAMAGED):
        return None
    return _entry(path, plan, _as_numbers(low), _as_numbers(high), checksum)


def read_attribute(path: Path, name: str):
    """Return an attribute of a shard, or None if the file or the attribute cannot be read."""
    with contextlib.suppress(OSError, RuntimeError), h5py.File(path, "r", locking=False) as file:
        return file.attrs.get(name)
    return None


class Planes(NamedTuple):
    """Places of the frames of one kind in a shard: (C, H, W) of one frame, and the byte at which each begins."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    offsets: dict[int, int]


def locate_planes(path: Path) -> dict[str, Planes]:
    """Return where the frames "lr", "hr" and, if the source has gaps, "valid" lie in a shard.

    Raises `InputError` if the file is not a shard.
    """
    located = {}
    try:
        with h5py.File(path, "r", locking=False) as file:
            for name, stored in _stored_frames(file, path):
                chunks: list = []
                stored.id.chunk_iter(chunks.append)
                offsets = {chunk.chunk_offset[0]: chunk.byte_offset for chunk in chunks}
                located[name] = Planes((1, *stored.shape[1:])[-3:], stored.dtype, offsets)
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{path}: cannot be read ({error}); run the preprocessing again") from None
    return located


def _stored_frames(file: h5py.File, path: Path) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield the frames of a shard as `write_shard` stores them: in this very file, chunked, without a filter.

    Anything else raises `InputError` and is not followed, such as a link or view that leads to another file, or a
    filter that would unpack terabytes.
    """
    inside = [file.get("frames", getlink=True), *(file["frames"].get(name, getlink=True) for name in file["frames"])]
    if all(isinstance(link, h5py.HardLink) for link in inside):
        for name, stored in file["frames"].items():
            properties = stored.id.get_create_plist() if isinstance(stored, h5py.Dataset) else None
            plain = properties is not None and properties.get_layout() == h5py.h5d.CHUNKED \
                and properties.get_nfilters() == 0 and stored.chunks == (1, *stored.shape[1:])
            if not plain or name not in ("lr", "hr", "valid"):
                break
            yield name, stored
        else:
            return
    raise InputError(f"{path}: holds data that this program does not write; run the preprocessing again")


def _write(path: Path, plan: ShardPlan, frames, attributes: dict, by_channel: bool) -> tuple[str, Numbers, Numbers]:
    """Write a shard; return the digest of its frames and the lowest and highest HR value, of all or of each channel."""
    digest, axes = hashlib.sha256(), (1, 2) if by_channel else None
    low, high = np.inf, -np.inf
    stored: dict[str, h5py.Dataset] = {}
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        # frames, one at a time
        for index, (lr, hr, valid) in enumerate(frames):
            planes = {"lr": lr, "hr": hr}
            if valid is not None or "valid" in stored:
                planes["valid"] = np.ones(stored["valid"].shape[1:], bool) if valid is None else valid
            for name, plane in planes.items():
                if name not in stored:
                    stored[name] = _create_frames(file, name, plan.num_frames, plane)
                _write_frame(stored[name], index, plane)
            _digest_planes(digest, lr, hr, valid)
            low, high = np.minimum(low, hr.min(axes)), np.maximum(high, hr.max(axes))
        assert index == plan.num_frames - 1, (index, plan)
        # views, frame numbers and attributes
        _create_view(file, "lr", stored["lr"], plan.num_samples, range(WINDOW))
        _create_view(file, "hr", stored["hr"], plan.num_samples, [REACH])
        file.create_dataset("frame", data=np.arange(plan.start + REACH, plan.stop - REACH, dtype=np.int64))
        for key, value in _all_attributes(plan, attributes).items():
            file.attrs[key] = value
        low, high = _as_numbers(low), _as_numbers(high)
        file.attrs.update({"frames_sha256": digest.hexdigest(), "hr_min": low, "hr_max": high})
    return digest.hexdigest(), low, high


def _as_numbers(values: Any) -> Numbers:
    """Return a number, or a list of one for each channel, as JSON has them."""
    return np.asarray(values, np.float64).tolist()


def _create_frames(file: h5py.File, name: str, num_frames: int, plane: np.ndarray) -> h5py.Dataset:
    fill = True if name == "valid" else None  # frames before the first gap have no gaps
    return file.create_dataset(f"frames/{name}", shape=(num_frames, *plane.shape), dtype=plane.dtype,
                               chunks=(1, *plane.shape), fillvalue=fill)


# A frame is one chunk without a filter, so its bytes are written directly, without h5py's slow selections.
def _write_frame(stored: h5py.Dataset, index: int, plane: np.ndarray) -> None:
    stored.id.write_direct_chunk((index, *(0,) * plane.ndim), np.ascontiguousarray(plane))


def _read_frame(stored: h5py.Dataset, index: int) -> bytes:
    return stored.id.read_direct_chunk((index, *(0,) * (len(stored.shape) - 1)))[1]


def _create_view(file: h5py.File, name: str, frames: h5py.Dataset, num_samples: int, offsets: Iterable[int]) -> None:
    """Create a virtual data set over this same file (source "."): sample i, offset k is frame i + k.

    No byte is stored twice. HDF5's own calls are used because h5py's `create_virtual_dataset` leaves the time of
    creation in the file.
    """
    offsets = list(offsets)
    plane = frames.shape[1:]
    stacked = len(offsets) > 1
    shape = (num_samples, len(offsets), *plane) if stacked else (num_samples, *plane)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.VIRTUAL)
    properties.set_obj_track_times(False)
    for position, offset in enumerate(offsets):
        view, source = h5py.h5s.create_simple(shape), h5py.h5s.create_simple(frames.shape)
        lead_start, lead_count = ((0, position), (num_samples, 1)) if stacked else ((0,), (num_samples,))
        rest = (0,) * len(plane)
        view.select_hyperslab((*lead_start, *rest), (*lead_count, *plane))
        source.select_hyperslab((offset, *rest), (num_samples, *plane))
        properties.set_virtual(view, b".", frames.name.encode(), source)
    h5py.h5d.create(file.id, name.encode(), frames.id.get_type(), h5py.h5s.create_simple(shape), dcpl=properties)


def _all_attributes(plan: ShardPlan, attributes: dict) -> dict:
    return {"format_version": FORMAT_VERSION, "split": plan.split, "first_frame": plan.start,
            "stop_frame": plan.stop, **attributes}


def _digest_frames(path: Path) -> str:
    digest = hashlib.sha256()
    with h5py.File(path, "r", locking=False) as file:
        stored = dict(_stored_frames(file, path))
        planes, valid = [stored["lr"], stored["hr"]], stored.get("valid")
        for index in range(len(planes[0])):
            for plane in planes:
                digest.update(_read_frame(plane, index))
            if valid is not None:
                _digest_valid(digest, valid[index])
    return digest.hexdigest()


def _views_are_right(path: Path, plan: ShardPlan) -> bool:
    """Check that the frame numbers are right and that the first and last stacks show their frames."""
    with h5py.File(path, "r", locking=False) as file:
        frames, last = file["frames"], plan.num_samples - 1
        return (np.array_equal(file["frame"], np.arange(plan.start + REACH, plan.stop - REACH))
                and len(file["lr"]) == len(file["hr"]) == plan.num_samples
                and all(np.array_equal(file["lr"][index], frames["lr"][index : index + WINDOW]) for index in (0, last))
                and all(np.array_equal(file["hr"][index], frames["hr"][index + REACH]) for index in (0, last)))


def _digest_planes(digest, lr: np.ndarray, hr: np.ndarray, valid: np.ndarray | None) -> None:
    for plane in (lr, hr):
        digest.update(np.ascontiguousarray(plane))
    if valid is not None:
        _digest_valid(digest, valid)


def _digest_valid(digest, valid: np.ndarray) -> None:
    if not valid.all():
        digest.update(np.ascontiguousarray(valid))


def _entry(path: Path, plan: ShardPlan, low: Numbers, high: Numbers, checksum: str) -> ShardEntry:
    return ShardEntry(path.name, plan.split, plan.start, plan.num_frames, plan.num_samples, path.stat().st_size,
                      checksum, low, high)


def list_shard_files(folder: Path) -> Iterator[Path]:
    """Yield the shards in a folder, including those that a killed process left under a temporary name."""
    pattern = "*-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9].h5"
    yield from sorted(folder.glob(pattern))
    yield from sorted(folder.glob(partial_path(Path(pattern)).name))


def try_hdf5(path: Path) -> str | None:
    """Write a small file and read it back as shards are read; return None if that works, else the reason."""
    try:
        with h5py.File(path, "w", libver=("v110", "v110")) as file:
            file["values"] = np.arange(8)
        with h5py.File(path, "r", locking=False) as file:
            return None if file["values"][:].tolist() == list(range(8)) else "the values read back differ"
    except OSError as error:
        return str(error)
