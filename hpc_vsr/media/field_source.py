"""Reads one variable of a simulation (NetCDF, HDF5 or Zarr) as float32 frames, lazily through xarray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hpc_vsr.media import field_hdf5
from hpc_vsr.media.field_axes import MustChoose, find_axes, read_selection
from hpc_vsr.media.field_clock import Clock
from hpc_vsr.media.field_files import (
    check_file,
    default_fill,
    list_field_files,
    list_groups,
    look_at_file,
    open_group,
    open_variable,
)
from hpc_vsr.media.field_look import check_values, choose_offset, describe, facts_of, look_at, refuse_late_fill
from hpc_vsr.media.field_part import Part, find_times, open_part
from hpc_vsr.media.field_periodic import fill_from_nearest, find_periodic, join_facts
from hpc_vsr.media.field_several import FieldsSource, choose_for, split_names
from hpc_vsr.media.field_time import look_at_names, look_at_times
from hpc_vsr.media.field_values import FieldFrames, as_stored
from hpc_vsr.media.reading import Facts, Periodic
from hpc_vsr.system.errors import InputError


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

    def __init__(self, paths: Sequence[Path], variable: str, wanted: Mapping[str, str] | None = None,
                 periodic: Periodic = "auto"):
        self.files = list(paths)
        self._variable, self._wanted = variable.strip("/"), dict(wanted or {})
        parts, clocks = self.open_parts(stored=True)
        arrays = [part.array for part in parts]
        first = arrays[0]
        for path, array in zip(paths, arrays, strict=True):
            if _grid(array) != _grid(first):
                raise InputError(f"{path}: {variable} is {_shape_text(array)}, but in {paths[0].name} "
                                 f"{_shape_text(first)}; all files must have the same grid and unit")
        name = parts[0].name
        defaults = [default_fill(path, self._variable, array.dtype) for path, array in zip(paths, arrays, strict=True)]
        self._frames = FieldFrames(paths, arrays, name, defaults)
        self.block_bytes = self._frames.block_bytes
        self.channels = (name,)
        self.num_frames, (self.height, self.width) = self._frames.num_frames, first.shape[1:]
        found = _find_facts(parts, clocks, self._variable)  # before the values: a lost part would look like zeros
        self._look = look_at(self._frames)
        self.offset = choose_offset(self._look)
        units = str(first.attrs.get("units", "1"))
        self.facts = join_facts(found, facts_of(self._frames, self._look, self.offset, units),
                                find_periodic(first, parts[0].dataset.variables, periodic, str(paths[0])))
        self.description = {
            "variable": self._variable,
            "units": units,
            "long_name": str(first.attrs.get("long_name", name)),
            "dimensions": [str(name) for name in first.dims],
            "coordinates": [_describe_axis(first, name) for name in first.dims[1:]],
            **describe(self._frames, self._look, self.offset),
        }
        self._chosen = {*map(str, parts[0].axes.chosen), *parts[0].axes.selection}
        if parts[0].axes.selection:
            self.description["selection"] = dict(parts[0].axes.selection)

    def open_parts(self, stored: bool) -> tuple[list[Part], list[Clock] | None]:
        """Open the files; the values of the variable stay as they are `stored`, or are decoded by xarray."""
        name = self._variable.rpartition("/")[2] if stored else None
        parts = [open_part(path, self._variable, self._wanted, **as_stored(path, name)) for path in self.files]
        try:
            return find_times(parts)
        except InputError:
            raise
        except (OSError, RuntimeError, ValueError) as error:  # raised by back ends for damaged data
            raise InputError(f"{self.files[0]}: the time stamps beside {self._variable} cannot be read "
                             f"({str(error).splitlines()[0]}); the file is damaged, copy it again") from None

    @property
    def arrays(self) -> list:
        """For each file the variable over (time, y, x) as a lazy xarray.DataArray."""
        return self._frames.arrays

    @property
    def offsets(self) -> list[float]:
        """`offset` of each channel; there is one."""
        return [self.offset]

    @property
    def output_dtypes(self) -> list[np.dtype]:
        """Type of float that holds an enlarged frame of each channel with what was subtracted from it."""
        return [np.dtype(np.float64 if self.offset else np.float32)]

    @property
    def chosen(self) -> list[set[str]]:
        """For each channel the dimensions, and the coordinates along them, of which a value was chosen."""
        return [self._chosen]

    @property
    def summary(self) -> str:
        """What the variable is, its units and its range, as text."""
        return (f"{self.description['long_name']}, {self._look.low:.6g} to {self._look.high:.6g} "
                f"({self.description['units']})")

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
        """Open the files as xarray data sets; times stay the numbers that are stored.

        The variable is `channels[0]` in them and has the dimensions of the description in that order, perhaps with
        others of length one; what was chosen of further dimensions is a coordinate without dimension.
        """
        return [part.dataset for part in self.open_parts(stored=False)[0]]


def list_variables(path: Path, wanted: Mapping[str, str] | None = None) -> list[str]:
    """Return the variables over (time, y, x) in a file, or in the first file of a pattern, with their groups.

    Parameters
    ----------
    path : Path
    wanted : mapping, optional
        Values that are chosen of further dimensions.

    Returns
    -------
    list of str
        Variables with time if there are any, else those of which a value must be chosen, else those without time.
    """
    first, found = list_field_files(path)[0], {"time": [], "choice": [], "frame": []}
    for group in list_groups(first):
        dataset = open_group(first, group)
        bounds = {str(array.attrs.get(key)) for array in dataset.variables.values()
                  for key in ("bounds", "climatology")}
        for name, array in dataset.data_vars.items():
            if array.ndim >= 2 and array.dtype.kind in "fiu" and name not in bounds:
                kind = _kind_of_variable(dataset, name, wanted or {})
                found.get(kind, []).append(f"{group}/{name}".lstrip("/"))
    return found["time"] or found["choice"] or found["frame"]


def _kind_of_variable(dataset, name: str, wanted: Mapping[str, str]) -> str:
    try:
        return "time" if find_axes(dataset, name, wanted).time is not None else "frame"
    except MustChoose:
        return "choice"
    except InputError:
        return ""


def open_field(path: Path, variable: str | None = None, select: str | None = None, periodic: Periodic = "auto"
               ) -> FieldSource | FieldsSource:
    """Open one variable, or several, of NetCDF, HDF5 or Zarr files.

    Parameters
    ----------
    path : Path
        A file, a Zarr store, or a pattern such as ``out_*.nc`` for several, which are read in natural order.
    variable : str, optional
        A variable over time, y and x, in any order, with its groups: tasks/vorticity. It may be left out if there is
        only one. Each file is one frame if the variable has no time. Several variables, "u,v", are the channels of
        the frames, and lie on the same points.
    select : str, optional
        One value of each further dimension that has more than one, such as "level=500,number=0". Of several
        variables it chooses in those that have the dimension.
    periodic : {"auto", "none", "x", "y", "xy"}
        Directions in which it goes on at the other side; auto finds longitudes around the globe.

    Raises
    ------
    InputError
        If xarray is not installed, a file cannot be read, has lost a part, the variable is missing or of another
        shape, a value must be chosen, the frames are not in order of time, or several variables lie on different
        points.
    """
    files, wanted = list_field_files(path), read_selection(select)
    for file in files:
        check_file(file)
    if variable is not None and "," in variable:
        return _open_several(files, split_names(variable), wanted, periodic)
    return FieldSource(files, variable or _only_variable(path, wanted), wanted, periodic)


def _open_several(files: Sequence[Path], names: Sequence[str], wanted: Mapping[str, str], periodic: Periodic
                  ) -> FieldsSource:
    found = [open_variable(files[0], name) for name in names]
    chosen = [choose_for(dataset[plain], dataset, wanted) for dataset, plain in found]
    for key in wanted:
        if not any(key in one for one in chosen):
            chosen[0] = dict(wanted)  # opening it says that there is no such dimension
    return FieldsSource([FieldSource(files, name, one, periodic) for name, one in zip(names, chosen, strict=True)])


def _only_variable(path: Path, wanted: Mapping[str, str]) -> str:
    names = list_variables(path, wanted)
    if len(names) != 1:
        raise InputError(f"--variable is missing: {path} has {', '.join(names) or 'no variable over (time, y, x)'}")
    return names[0]


def _find_facts(parts: Sequence[Part], clocks: Sequence[Clock] | None, variable: str) -> Facts:
    """Return what is known of time, order and choice, and warnings of what was lost."""
    paths, first = [part.path for part in parts], parts[0]
    times = look_at_times(paths, clocks) if clocks else look_at_names(paths, [len(part.array) for part in parts])
    lines = [times.line, *first.axes.lines]
    in_order = [name for name in first.stored if name in first.array.dims]
    if len(in_order) < 3:
        lines.append(f"{first.name} has no time, but {' and '.join(in_order)}: each file is one frame")
    elif in_order != list(first.array.dims):
        lines.append(f"({', '.join(in_order)}) in the file, read as ({', '.join(map(str, first.array.dims))})")
    if len(paths) > 1:
        lines.append(f"{len(paths)} files, from {paths[0].name} to {paths[-1].name}")
    if paths[0].is_file() and field_hdf5.starts_with(paths[0], field_hdf5.MATLAB):
        lines.append(field_hdf5.describe_matlab(first.name, first.dataset[first.name].shape))
    absent = [line for path in paths for line in look_at_file(path, variable)]
    more = [f"{len(absent) - 3} more files lack values"] if len(absent) > 3 else []
    return Facts(breaks=times.breaks, lines=lines, warnings=[*times.warnings, *absent[:3], *more])


def _grid(array) -> tuple:
    """Return what files of one field must share: dimensions, unit, and coordinates to six digits."""
    ends = [(axis["first"], axis["last"]) for axis in (_describe_axis(array, name) for name in array.dims[1:])]
    rounded = [f"{first:.6g} to {last:.6g}" for first, last in ends]
    return array.dims[1:], array.shape[1:], str(array.attrs.get("units")), rounded


def _shape_text(array) -> str:
    names, shape, units, ends = _grid(array)
    axes = ", ".join(f"{name}: {count} from {span}" for name, count, span in zip(names, shape, ends, strict=True))
    return f"({axes}) in {units}"


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


