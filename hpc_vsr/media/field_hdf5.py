"""Looks into HDF5 files for what xarray does not tell: groups, filters, parts in other files, chunks never written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpc_vsr.media.field_missing import netcdf_fill
from hpc_vsr.system.errors import InputError

NATIVE = {1, 2, 3, 4, 6}  # deflate, shuffle, fletcher32, szip, scale and offset: part of HDF5 itself
FILTERS = {4: "SZIP", 307: "bzip2", 32000: "LZF", 32001: "Blosc", 32004: "LZ4", 32008: "bitshuffle", 32013: "ZFP",
           32014: "FPZIP", 32015: "Zstandard", 32017: "SZ", 32018: "FCIDECOMP", 32019: "JPEG", 32024: "SZ3",
           32026: "Blosc2", 32028: "FLAC"}
MATLAB = b"MATLAB 7.3"
MATLAB_OLD = b"MATLAB 5.0"
OWN_ATTRIBUTES = ("DIMENSION_LIST", "DIMENSION_LABELS", "REFERENCE_LIST", "CLASS", "NAME")
DAMAGED = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError)  # what h5py raises
UNUSED = ("#refs#", "#subsystem#")  # of MATLAB


def is_hdf5(path: Path) -> bool:
    return path.is_file() and bool(h5py.is_hdf5(path))


def starts_with(path: Path, mark: bytes) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(mark)) == mark


def list_groups(path: Path) -> list[str]:
    """Return the groups of a file that hold arrays of numbers, "" for the top."""
    with _opened(path) as file, passing_damage():
        return list(_walk(file, "")) if file is not None else [""]
    return [""]


def _walk(group: h5py.Group, name: str) -> Iterator[str]:
    """Go through groups below one, but through none twice by a soft or external link."""
    below, has_arrays = [], False
    for key in group:
        if key in UNUSED or not isinstance(group.get(key, getlink=True), h5py.HardLink):
            continue
        item = group[key]
        if isinstance(item, h5py.Group):
            below.append((item, f"{name}/{key}".lstrip("/")))
        else:
            has_arrays |= isinstance(item, h5py.Dataset) and item.ndim >= 2 and item.dtype.kind in "fiu"
    if has_arrays or not name:
        yield name
    for item, key in below:
        yield from _walk(item, key)


@contextlib.contextmanager
def passing_damage() -> Iterator[None]:
    """Leave a damaged file to xarray, which reports it."""
    try:
        yield
    except InputError:
        raise
    except DAMAGED:
        pass


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File | None]:
    """Open a file; None if it is damaged, which xarray then reports."""
    try:
        file = h5py.File(path, "r")
    except DAMAGED:
        yield None
        return
    with file:
        yield file


def check_variable(path: Path, name: str) -> list[str]:
    """Check that all of a variable can be read.

    Parameters
    ----------
    path : Path
    name : str
        Variable with its groups: tasks/vorticity.

    Returns
    -------
    list of str
        Warnings of what was never written, and is read as a fill value that nothing declares as missing.

    Raises
    ------
    InputError
        If a part in another file is missing, or a filter is not installed.
    """
    with _opened(path) as file, passing_damage():
        dataset = file.get(name) if file is not None else None
        if file is not None and dataset is None:
            _check_link(path, file, name)
        if isinstance(dataset, h5py.Dataset):
            _check_filters(path, name, dataset)
            return [*_check_parts(path, name, dataset), *_look_for_absent(path, name, dataset)]
    return []


def default_fill(path: Path, name: str) -> int | None:
    """Return what is filled in where nothing of a variable was written, if it is what the NetCDF library fills in."""
    with _opened(path) as file, passing_damage():
        dataset = None if file is None else file.get(name)
        if isinstance(dataset, h5py.Dataset) and _has_default_fill(dataset):
            return netcdf_fill(dataset.dtype)
    return None


def _has_default_fill(dataset: h5py.Dataset) -> bool:
    is_chosen = dataset.id.get_create_plist().fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED
    default = netcdf_fill(dataset.dtype)
    return is_chosen and default is not None and dataset.fillvalue == default


def list_engines(path: Path) -> list[str]:
    """Return the engines of xarray that may read a file, the best one first.

    The netCDF library takes a float of another size than 4 or 8 bytes for text, and reading it ends the process. It
    does not know all filters that h5py knows.
    """
    found: set[int] = set()
    has_other_floats = False
    with _opened(path) as file, passing_damage():
        for dataset in _list_datasets(file, set()) if file is not None else ():
            found.update(_filters(dataset))
            has_other_floats |= dataset.dtype.kind == "f" and dataset.dtype.itemsize not in (4, 8)
    if has_other_floats:
        return ["h5netcdf"]
    if found - NATIVE and all(h5py.h5z.filter_avail(number) for number in found):
        return ["h5netcdf", "netcdf4"]
    return ["netcdf4", "h5netcdf"]


def _list_datasets(group: h5py.Group, seen: set[tuple]) -> Iterator[h5py.Dataset]:
    """Go through all data sets below a group, once each, also through links to other files."""
    for key in group:
        with contextlib.suppress(*DAMAGED):
            item = group[key]
            info = h5py.h5o.get_info(item.id)
            if (info.fileno, info.addr) not in seen:
                seen.add((info.fileno, info.addr))
                if isinstance(item, h5py.Dataset):
                    yield item
                elif isinstance(item, h5py.Group):
                    yield from _list_datasets(item, seen)


def is_plain(path: Path) -> bool:
    """Check whether a file can be opened, and the NetCDF library did not write it."""
    with _opened(path) as file:
        return file is not None and "_NCProperties" not in file.attrs.keys()  # noqa: SIM118


def _filters(dataset: h5py.Dataset) -> list[int]:
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]


def _check_link(path: Path, file: h5py.File, name: str) -> None:
    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise InputError(f"{path}: {name} is a link to {link.path} in {link.filename}, which is not there; put that "
                         f"file next to {path.name}")


def _check_parts(path: Path, name: str, dataset: h5py.Dataset) -> list[str]:
    """Raise `InputError` if a part in another file is missing, where HDF5 would read fill values; return warnings."""
    sources = [part for part in (dataset.virtual_sources() if dataset.is_virtual else ())
               if part.file_name != "." and "%b" not in part.file_name]  # with %b: as many files as there are
    names = list(dict.fromkeys([*(part.file_name for part in sources), *(part[0] for part in dataset.external or ())]))
    missing = [part for part in names if not _find_part(path, part)]
    if missing:
        more = f" and {len(missing) - 1} more of them" if len(missing) > 1 else ""
        raise InputError(f"{path}: {name} is made of {len(names)} other file{'s' * (len(names) > 1)}, and {missing[0]}"
                         f"{more} is not there; put it next to {path.name}")
    warnings = []
    for part, inner in dict.fromkeys((part.file_name, part.dset_name) for part in sources):
        found = _find_part(path, part)
        with _opened(found) as file:
            if file is None or not isinstance(file.get(inner), h5py.Dataset):
                raise InputError(f"{path}: {name} is made of other files, and {found} has no {inner.lstrip('/')} that "
                                 "can be read; copy it again")
        warnings += check_variable(found, inner)
    return warnings


def _find_part(path: Path, part: str) -> Path | None:
    """Return where HDF5 finds a part: as named, next to the file, or in the folder of HDF5_VDS_PREFIX."""
    prefix = os.environ.get("HDF5_VDS_PREFIX", "").replace("${ORIGIN}", str(path.parent))
    name = Path(part).name if Path(part).is_absolute() else part
    folders = (path.parent, path.resolve().parent, *([Path(prefix)] if prefix else []), Path())
    return next((place for place in (Path(part), *(folder / name for folder in folders)) if place.is_file()), None)


def _check_filters(path: Path, name: str, dataset: h5py.Dataset) -> None:
    foreign = [number for number in _filters(dataset) if not h5py.h5z.filter_avail(number)]
    if foreign and not _can_be_read_elsewhere(path, name):
        called = FILTERS.get(foreign[0], f"number {foreign[0]}")
        raise InputError(f"{path}: {name} is compressed with the filter {called}, which is not installed here; run "
                         "'pip install hdf5plugin', or write it with zlib, such as by h5repack -f GZIP=1")


def _can_be_read_elsewhere(path: Path, name: str) -> bool:
    """Check whether the filters that come with netCDF4 read a value."""
    if "netcdf4" not in list_engines(path):
        return False
    import netCDF4

    with contextlib.suppress(OSError, RuntimeError, IndexError, KeyError), netCDF4.Dataset(path) as file:
        variable = file[name]
        variable[(0,) * variable.ndim]
        return True
    return False


def _look_for_absent(path: Path, name: str, dataset: h5py.Dataset) -> list[str]:
    """Return a warning if chunks were never written, and nothing declares their value as missing."""
    fill = dataset.fillvalue
    if dataset.dtype.kind not in "fiu" or not dataset.size or (
            _has_default_fill(dataset) or _is_missing(fill, dataset.attrs)):
        return []
    if dataset.is_virtual:
        covered = sum(part.vspace.get_select_npoints() for part in dataset.virtual_sources())
        what, absent, total = "values", max(0, dataset.size - covered), dataset.size
        if any("%b" in part.file_name for part in dataset.virtual_sources()):
            absent = 0  # not counted
    elif dataset.chunks:
        total = int(np.prod([-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)]))
        what, absent = "chunks", total - dataset.id.get_num_chunks()
    else:
        what, total = "values", dataset.size
        absent = total if not dataset.external and dataset.id.get_storage_size() == 0 else 0
    return [absent_warning(path, name, absent, total, what, fill)] if absent else []


def absent_warning(path: Path, name: str, absent: int, total: int, what: str, fill: Any) -> str:
    return (f"{path}: {absent} of {total} {what} of {name} were never written or are lost, and are read as {fill}; "
            "if that is a missing value, declare it as _FillValue")


def _is_missing(fill: Any, attributes: Any) -> bool:
    declared = [attributes[key] for key in ("_FillValue", "missing_value") if key in attributes]
    return fill != fill or any(np.any(np.asarray(one) == fill) for one in declared)


def describe_matlab(name: str, shape: tuple[int, ...]) -> str:
    """Return a line about the order of dimensions in MATLAB, whose last one is the first in the file."""
    sizes = " x ".join(str(size) for size in reversed(shape))
    return (f"MATLAB: size({name}) is {sizes}; the last is time, the one before it the rows and the first the columns "
            "of a frame")


def read_labels(path: Path, name: str) -> list[tuple[str, np.ndarray | None]]:
    """Return the label of each dimension of a variable, "" if it has none, and the values of its first scale."""
    with _opened(path) as file, passing_damage():
        dataset = None if file is None else file.get(name)
        if isinstance(dataset, h5py.Dataset):
            return [(dim.label, dim[0][()] if len(dim) and dim[0].shape == (size,) else None)
                    for dim, size in zip(dataset.dims, dataset.shape, strict=True)]
    return []


def list_arrays(path: Path, group: str) -> dict[str, LazyArray]:
    """Return the arrays of numbers of a group, of any shape, by name."""
    with _opened(path) as file:
        found = {}
        for key, item in (file[group or "/"].items() if file is not None else ()):
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu" and item.shape is not None:
                found[key] = LazyArray(path, f"{group}/{key}".lstrip("/"), item)
        return found


class LazyArray:
    """An array of a file that is opened for each reading, so that any number of files can be at hand."""

    def __init__(self, path: Path, name: str, dataset: h5py.Dataset):
        self.path, self.name, self.shape, self.dtype, self.ndim = path, name, dataset.shape, dataset.dtype, dataset.ndim
        self.attributes = {key: value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
                           for key, value in dataset.attrs.items() if key not in OWN_ATTRIBUTES}

    def __getitem__(self, index: Any) -> np.ndarray:
        with h5py.File(self.path, "r") as file:
            return file[self.name][index]
