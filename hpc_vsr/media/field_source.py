"""Reads one variable of a simulation (NetCDF, HDF5 or Zarr) as float32 frames, lazily through xarray."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hpc_vsr.media.field_look import check_values, choose_offset, describe, facts_of, look_at, refuse_late_fill
from hpc_vsr.media.field_periodic import fill_from_nearest, find_periodic, join_facts
from hpc_vsr.media.field_values import FieldFrames, as_stored
from hpc_vsr.media.order import natural_order
from hpc_vsr.media.reading import Periodic
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import check_input_file

PICKLED = r'"id"\s*:\s*"pickle"|numcodecs\.pickle'  # filters that would unpickle a Zarr array
NETCDF3 = (b"CDF\x01", b"CDF\x02")


class FieldSource:
    """A (time, y, x) variable of one or more files; see `hpc_vsr.media.source.Source`.

    Missing values are filled from the nearest valid one.

    Attributes
    ----------
    offset : float
        What is subtracted from the values in float64, because float32 is too coarse for them; mostly 0.
    block_bytes : int
        Most memory that it takes for what it has read of the files.
    """

    dtype = "float32"

    def __init__(self, paths: Sequence[Path], variable: str, periodic: Periodic = "auto"):
        self.files = list(paths)
        self._arrays = [_open_variable(path, variable) for path in paths]
        first = self._arrays[0]
        for path, array in zip(paths, self._arrays, strict=True):
            if _grid(array) != _grid(first):
                raise InputError(f"{path}: {variable} is {_shape_text(array)}, but in {paths[0].name} "
                                 f"{_shape_text(first)}; all files must have the same grid and unit")
        _check_order(paths, self._arrays)
        self._frames = FieldFrames(paths, self._arrays, variable)
        self.block_bytes = self._frames.block_bytes
        self.channels = (variable,)
        self.num_frames, (self.height, self.width) = self._frames.num_frames, first.shape[1:]
        self._look = look_at(self._frames)
        self.offset = choose_offset(self._look)
        units = str(first.attrs.get("units", "1"))
        self.facts = join_facts(facts_of(self._frames, self._look, self.offset, units),
                                find_periodic(first, periodic, str(paths[0])))
        self.description = {
            "variable": variable,
            "units": units,
            "long_name": str(first.attrs.get("long_name", variable)),
            "dimensions": [str(name) for name in first.dims],
            "coordinates": [_describe_axis(first, name) for name in first.dims[1:]],
            **describe(self._frames, self._look, self.offset),
        }

    @property
    def output_dtype(self) -> np.dtype:
        """Type of float that holds an enlarged frame with what was subtracted from it."""
        return np.dtype(np.float64 if self.offset else np.float32)

    def read(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield the fields start..stop-1, each (1, H, W) float32 in physical units, and the mask of valid values.

        If `offset` is not 0, it is subtracted from the physical values.
        """
        for index in range(start, stop):
            values, missing, _ = self._frames.frame(index)
            valid = None if missing is None else ~missing
            if valid is not None and not valid.any():
                subject, place = self._frames.place(index)
                raise InputError(f"{subject} has no valid value {place}; cut the file to the frames that have data")
            seen = values if valid is None else values[valid]
            check_values(self._frames, index, seen)
            refuse_late_fill(self._frames, index, seen, self._look)
            if self.offset:
                values = values.astype(np.float64) - self.offset
            values = values.astype(np.float32)
            yield (values if valid is None else fill_from_nearest(values, valid, self.facts.periodic))[None], valid

    def open_datasets(self) -> list:
        """Open the files as xarray data sets; times stay the numbers that are stored."""
        import xarray

        return [_open_any(xarray, path, decode_times=False, **as_stored(path)) for path in self.files]


def list_variables(path: Path) -> list[str]:
    """Return the names of the variables over (time, y, x) in a file, or in the first file of a pattern."""
    xarray, first = _import_xarray(), list_field_files(path)[0]
    return [str(name) for name, array in _open_dataset(xarray, first).data_vars.items()
            if _without_single_dimensions(array).ndim == 3 and array.dtype.kind in "fiu"]


def open_field(path: Path, variable: str | None = None, select: str | None = None, periodic: Periodic = "auto"
               ) -> FieldSource:
    """Open one variable of NetCDF, HDF5 or Zarr files.

    Parameters
    ----------
    path : Path
        A file, a Zarr store, or a pattern such as ``out_*.nc`` for several, which are read in natural order.
    variable : str, optional
        A variable with the dimensions (time, y, x); others of length one are dropped. It may be left out if there is
        only one.
    periodic : {"auto", "none", "x", "y", "xy"}
        Directions in which it goes on at the other side; auto finds longitudes around the globe.

    Raises
    ------
    InputError
        If xarray is not installed, a file cannot be read, the variable is missing or of another shape, or the files
        are not in order of time.
    """
    files = list_field_files(path)
    for file in files:
        if not file.is_dir():  # a Zarr store is a folder
            check_input_file(file, "a NetCDF, HDF5 or Zarr file")
    return FieldSource(files, variable or _only_variable(path), periodic)


def _only_variable(path: Path) -> str:
    names = list_variables(path)
    if len(names) != 1:
        raise InputError(f"--variable is missing: {path} has {', '.join(names) or 'no variable over (time, y, x)'}")
    return names[0]


def list_field_files(path: Path) -> list[Path]:
    """Return the files that a path or a pattern names, in natural order; `InputError` if there is none."""
    if path.exists() or not any(mark in path.name for mark in "*?["):
        return [path]
    try:
        found = natural_order(path.parent.glob(path.name))
    except ValueError as error:
        raise InputError(f"{path}: is not a valid pattern ({error})") from None
    if not found:
        raise InputError(f"{path}: no file matches this pattern")
    return found


def _grid(array) -> tuple:
    """Return what files of one field must share: dimensions, unit, and coordinates to six digits."""
    ends = [(axis["first"], axis["last"]) for axis in (_describe_axis(array, name) for name in array.dims[1:])]
    rounded = [f"{first:.6g} to {last:.6g}" for first, last in ends]
    return array.dims[1:], array.shape[1:], str(array.attrs.get("units")), rounded


def _shape_text(array) -> str:
    names, shape, units, ends = _grid(array)
    axes = ", ".join(f"{name}: {count} from {span}" for name, count, span in zip(names, shape, ends, strict=True))
    return f"({axes}) in {units}"


def _check_order(paths: Sequence[Path], arrays: Sequence) -> None:
    """Raise `InputError` if a file begins before the previous one ends, by the coordinate of the first dimension."""
    name = arrays[0].dims[0]
    if any(name not in array.coords or not len(array) for array in arrays):
        return
    for path, array, before in zip(paths[1:], arrays[1:], arrays, strict=False):
        start, end = array.coords[name].values[0], before.coords[name].values[-1]
        try:
            is_later = bool(start > end)
        except TypeError:
            raise InputError(f"{path}: {name} is {array.coords[name].dtype}, but in the file before it "
                             f"{before.coords[name].dtype}; all files must use the same type") from None
        if not is_later:
            raise InputError(f"{path}: starts at {name} {start}, before the previous file ends ({end}); "
                             "name the files in order of time, without overlap")


def _describe_axis(array, name) -> dict:
    """Return name, units, size, first and last value of a coordinate; row numbers if it has none."""
    size = array.sizes[name]
    if name not in array.coords or array.coords[name].dtype.kind not in "fiu":
        return {"name": str(name), "units": "grid points", "size": size, "first": 0.0,
                "last": float(size - 1)}
    axis = array.coords[name]
    if axis.ndim != 1 or not np.isfinite(axis.values).all():
        return {"name": str(name), "units": "grid points", "size": size, "first": 0.0, "last": float(size - 1)}
    return {"name": str(name), "units": str(axis.attrs.get("units", "")), "size": size, "first": float(axis.values[0]),
            "last": float(axis.values[-1])}


def _import_xarray():
    try:
        import xarray
    except ModuleNotFoundError:
        raise InputError("fields need xarray; install it with 'pip install hpc-vsr[fields]'") from None
    return xarray


def _open_dataset(xarray, path: Path, variable: str | None = None):
    """Open a file; the values of `variable` stay as they are stored."""
    try:
        return _open_any(xarray, path, **as_stored(path, variable))
    except InputError:
        raise
    except Exception as error:  # xarray passes on whatever its back end raises
        raise InputError(f"{path}: cannot be read as NetCDF, HDF5 or Zarr "
                         f"({str(error).splitlines()[0].split(';')[0][:100]})") from None


def _open_variable(path: Path, variable: str):
    dataset = _open_dataset(_import_xarray(), path, variable)
    if variable not in dataset.data_vars:
        names = ", ".join(f"{name}{tuple(map(str, array.dims))}" for name, array in dataset.data_vars.items())
        raise InputError(f"{path}: has no variable {variable!r}; it has: {names or 'none'}")
    array = _without_single_dimensions(dataset[variable])
    if array.ndim != 3 or len(set(array.dims)) != 3 or array.dtype.kind not in "fiu":
        raise InputError(f"{path}: {variable} is {array.dtype} with dimensions {tuple(map(str, array.dims))}; "
                         "it must hold numbers over (time, y, x)")
    return array


def _without_single_dimensions(array):
    """Drop dimensions of length one until three are left, but not the first: a file may hold one time step."""
    for name in array.dims[1:]:
        if array.ndim > 3 and array.sizes[name] == 1:
            array = array.squeeze(name, drop=True)
    if array.ndim > 3 and len(array) == 1:
        array = array.squeeze(array.dims[0], drop=True)
    return array


def _check_store(path: Path) -> None:
    """Raise `InputError` if reading a Zarr array would unpickle objects, which can run any code."""
    for part in (path / ".zmetadata", path / "zarr.json", *path.glob("*/.zarray"), *path.glob("*/zarr.json")):
        if part.is_file() and re.search(PICKLED, part.read_text(encoding="utf-8", errors="replace")):
            raise InputError(f"{part}: holds pickled objects, which could run any program; write it without them")


def _open_any(xarray, path: Path, **options):
    _check_store(path)
    if path.is_file():
        with path.open("rb") as stream:
            if stream.read(4) in NETCDF3:  # the netCDF library reads zeros beyond the end of a truncated file
                return xarray.open_dataset(path, engine="scipy", **options)
    try:
        return xarray.open_dataset(path, **options)
    except Exception:
        if path.suffix not in (".h5", ".hdf5", ".he5"):
            raise
        return xarray.open_dataset(path, engine="h5netcdf", phony_dims="sort", **options)
