"""Opens one file of a field, with its variable arranged as (time, y, x)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpc_vsr.media.field_axes import Axes, find_axes
from hpc_vsr.media.field_clock import Clock, find_clocks
from hpc_vsr.media.field_files import open_variable
from hpc_vsr.system.errors import InputError


@dataclass(frozen=True)
class Part:
    """One file of a field.

    Attributes
    ----------
    path : Path
    dataset : xarray.Dataset
        What is beside the variable, cut to what is chosen of further dimensions.
    name : str
        The variable in it, without its groups. Its dimensions are time, rows and columns in this order, perhaps with
        others of length one.
    axes : Axes
    stored : tuple of str
        The dimensions in the order of the file.
    """

    path: Path
    dataset: Any
    name: str
    axes: Axes
    stored: tuple[str, ...]

    @property
    def array(self) -> Any:
        """The variable as an xarray.DataArray (time, y, x), or (y, x) if it has no time."""
        array = self.dataset[self.name]
        wanted = (self.axes.time, *self.axes.plane)
        return array.isel({dim: 0 for dim in array.dims if dim not in wanted}, drop=True)


def open_part(path: Path, variable: str, wanted: Mapping[str, str], **options: Any) -> Part:
    """Open a variable of a file; `wanted` are the values that the user chose, by dimension.

    Raises
    ------
    InputError
        If there is no such variable, it holds no numbers over (time, y, x), or a value must be chosen.
    """
    dataset, name = open_variable(path, variable, **options)
    array = dataset[name]
    if array.ndim < 2 or len(set(array.dims)) < array.ndim or array.dtype.kind not in "fiu":
        raise InputError(f"{path}: {variable} is {array.dtype} with dimensions {tuple(map(str, array.dims))}; "
                         "it must hold numbers over (time, y, x)")
    try:
        axes = find_axes(dataset, name, wanted)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None
    return Part(path, _arrange(dataset, name, axes), name, axes, tuple(map(str, array.dims)))


def _arrange(dataset: Any, name: str, axes: Axes) -> Any:
    """Cut a data set to what is chosen, and bring the dimensions of the variable into the order time, rows, columns."""
    dataset = dataset.isel(axes.chosen)
    order = [dim for dim in (axes.time, *axes.plane) if dim is not None]
    dims = dataset[name].dims
    if [dim for dim in dims if dim in order] != order:
        others = [dim for dim in dims if dim not in order]
        arranged = dataset[name].variable.transpose(*order[:-2], *others, *order[-2:])
        dataset = dataset.assign({name: arranged}) if name in dataset.data_vars else dataset.assign_coords(
            {name: arranged})
    return dataset


def join_variables(parts: Sequence[Part]) -> Any:
    """Return one data set of the parts of a file, each of which has another variable arranged; see `Part`."""
    dataset = parts[0].dataset
    for part in parts[1:]:
        dataset = dataset.isel({dim: place for dim, place in part.axes.chosen.items() if dim in dataset.dims})
        arranged = {part.name: part.dataset[part.name].variable}
        dataset = dataset.assign(arranged) if part.name in dataset.data_vars else dataset.assign_coords(arranged)
    return dataset


def find_times(parts: Sequence[Part]) -> tuple[list[Part], list[Clock] | None]:
    """Return the parts with a dimension of time, and their time stamps or None.

    Of files without such a dimension, each is a frame. Its time stamp and whatever else differs between the files,
    such as the number of a time step, then lie along time.
    """
    first = parts[0]
    for part in parts[1:]:
        if (part.axes.time is None) != (first.axes.time is None):
            raise InputError(f"{part.path}: {part.name} has dimensions {part.stored}, but in {first.path.name} "
                             f"{first.stored}; all files must have the same ones")
    clocks = find_clocks([part.dataset for part in parts], first.axes.time)
    if first.axes.time is not None:
        return list(parts), clocks
    time = clocks[0].name if clocks else next(name for name in ("time", "frame", "file_number")
                                             if name not in {*first.dataset.variables, *first.dataset.dims})
    differing = {name for name, value in first.dataset.variables.items() if value.ndim == 0 and _differs(parts, name)}
    along = {first.name, *differing, *([time] if clocks else ())}
    return [_put_on(part, time, along) for part in parts], clocks


def _differs(parts: Sequence[Part], name: Any) -> bool:
    values = [part.dataset.variables[name] for part in parts if name in part.dataset.variables]
    return len(values) == len(parts) and any(value.ndim or value.values != values[0].values for value in values)


def _put_on(part: Part, time: str, names: set) -> Part:
    """Give variables a dimension of time, of length one."""
    dataset = part.dataset
    coordinates = [name for name in names if name in dataset.coords]
    longer = {name: dataset.variables[name].set_dims({time: 1, **dataset.variables[name].sizes})
              for name in names if name in dataset.variables}
    dataset = dataset.drop_vars(longer).assign(longer).set_coords(coordinates)
    return replace(part, dataset=dataset, axes=replace(part.axes, time=time))
