"""Gathers what an enlarged field has beside its variables: coordinates, bounds, areas, masks, attributes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path

import dask.array
import numpy as np
import xarray

from hpc_vsr.media.field_attributes import STORAGE, Ends, plain, rewrite
from hpc_vsr.media.field_classes import UNKNOWN, Class, Described, Grid, class_of
from hpc_vsr.media.field_finer import Finer, Position, make_finer
from hpc_vsr.media.field_grid import share_cells
from hpc_vsr.media.field_names import correct_names
from hpc_vsr.media.field_steps import Steps
from hpc_vsr.media.field_storage import (
    KEPT_ENCODING,
    LIMITS,
    PACKING,
    common_encoding,
    float_of_netcdf,
    kept_encoding,
    limits_of,
)

BOUNDS_ENDINGS = ("_bnds", "_bounds", "_vertices", "_bnd", "_corners")
TOPOLOGIES = ("grid_topology", "mesh_topology")  # they tie the sizes of several grids to each other
MAPPING_KEYS = ("grid_mapping_name", "GeoTransform", "crs_wkt", "spatial_ref")


class Beside:
    """All that the files have beside the variables of the field, on the finer grid.

    Attributes
    ----------
    dataset : xarray.Dataset
    left_out : list of str
        Variables, and attributes as "attribute NAME of VARIABLE", that are not there.
    attrs : dict
        {variable: attributes} of the field itself.

    Raises
    ------
    InputError
        If something cannot be read.
    """

    def __init__(self, datasets: list[xarray.Dataset], files: list[Path], variables: Sequence[str], frames: range,
                 grid: Grid):
        self._datasets, self._first, self._grid, self._frames = datasets, datasets[0], grid, frames
        self._variables = list(variables)
        self._on_grid = {grid.rows, grid.columns}
        self._has_time = grid.time in self._first[variables[0]].dims
        self._steps = Steps(datasets, files, variables[0], frames, grid.time)
        self.left_out: list[str] = []
        self._kept: dict[Hashable, xarray.Variable] = {}
        self._ends = Ends()
        self._named = self._named_by("coordinates")
        self._measures = self._named_by("cell_measures")
        self._named_positions = {name for name in self._named if name in self._first.variables
                                 and self._on_grid <= set(self._first.variables[name].dims)
                                 and class_of(self._described(name), grid, (), {name}).kind == "position"}
        self._positions = self._refine_positions()
        for name in self._first.variables:
            if name not in (*self._variables, *self._kept, *self.left_out):
                self._keep(name)
        self._finish()

    # what lies on the grid

    def _described(self, name: Hashable) -> Described:
        array = self._first.variables[name]
        return Described(str(name), array.dims, np.dtype(array.encoding.get("dtype") or array.dtype), array.attrs,
                         any(key in array.encoding for key in PACKING),
                         name in self._first.coords or name in self._named)

    def _class_of(self, name: Hashable) -> Class:
        """Return the class of a variable; one that changes in time and is not in all files is unknown."""
        is_everywhere = all(name in one.variables for one in self._datasets)
        if self._grid.time in self._first.variables[name].dims and not is_everywhere:
            return UNKNOWN
        return class_of(self._described(name), self._grid, self._measures, self._named_positions)

    def _bounds_of(self, name: Hashable) -> Hashable | None:
        wanted = [self._first.variables[name].attrs.get("bounds"), *(f"{name}{ending}" for ending in BOUNDS_ENDINGS)]
        return next((one for one in wanted if one in self._first.variables), None)

    def _refine_positions(self) -> list[Hashable]:
        positions, bounds = [], {}
        for name, array in self._first.variables.items():
            if name in self._variables or not self._on_grid & set(array.dims):
                continue
            found = self._class_of(name)
            if found.kind != "position":
                continue
            dims = tuple(dim for dim in (self._grid.rows, self._grid.columns) if dim in array.dims)
            steps, is_fixed = self._steps.find(name, dims)
            position = Position(str(name), dims, found.measure, steps(0), array.dims == (name,),
                                at=None if is_fixed else steps)
            if (beside := self._bounds_of(name)) is not None:
                bounds[name] = beside
                position.bounds = self._steps.read_bounds(beside, dims) if is_fixed else None
            positions.append(position)
        finer = make_finer(positions, self._grid)
        for one in positions:
            if one.name not in finer:
                self.left_out += [one.name, *([bounds[one.name]] if one.name in bounds else [])]
                continue
            self._keep_position(one, finer[one.name], bounds.get(one.name))
        self.left_out += [str(name) for name in bounds.values() if name not in self._kept and name not in self.left_out]
        return [one.name for one in positions if one.name in finer]

    def _keep_position(self, one: Position, finer: Finer, bounds: Hashable | None) -> None:
        array, time = self._first.variables[one.name], self._grid.time
        encoding = kept_encoding(array)
        dtype = encoding.get("dtype", np.dtype(np.float64))
        limits, dropped = limits_of(array, finer.values)
        attrs, left_out = rewrite({**array.attrs, **limits}, "position", self._grid, self._ends)
        self._tell(one.name, [*left_out, *dropped])
        attrs = {key: value for key, value in attrs.items() if key not in dropped}
        if finer.at:
            shape = finer.values.shape
            at = finer.at
            steps = dask.array.arange(len(self._frames), chunks=1)[(slice(None), *(None for _ in shape))]
            values = dask.array.map_blocks(lambda block: at(int(block.ravel()[0])).astype(dtype)[None], steps,
                                           dtype=dtype, chunks=((1,) * len(self._frames), *((n,) for n in shape)))
            self._kept[one.name] = xarray.Variable((time, *one.dims), values, attrs, encoding)
            return
        self._kept[one.name] = xarray.Variable(one.dims, finer.values.astype(dtype), attrs,
                                               encoding or {"_FillValue": None})
        self._note_ends(one, finer)
        if bounds is not None and finer.bounds is not None:
            old = self._first.variables[bounds]
            corner = [dim for dim in old.dims if dim not in (*one.dims, time)]
            encoding = kept_encoding(old)
            self._kept[bounds] = xarray.Variable((*one.dims, *corner),
                                                 finer.bounds.astype(encoding.get("dtype", np.float64)), old.attrs,
                                                 encoding or {"_FillValue": None})

    def _note_ends(self, one: Position, finer: Finer) -> None:
        """Note the first and last centre of an axis, or the lowest and highest of a plane, for attributes with them."""
        axis = "lon" if one.measure.period else "lat" if one.measure.limit else (
            "lon" if one.dims == (self._grid.columns,) else "lat" if one.dims == (self._grid.rows,) else None)
        if axis and axis not in self._ends.before:
            for ends, values in ((self._ends.before, one.values), (self._ends.after, finer.values)):
                ends[axis] = ((float(values[0]), float(values[-1])) if values.ndim == 1
                              else (float(np.nanmin(values)), float(np.nanmax(values))))

    def _keep_share(self, name: Hashable, power: int) -> None:
        """Keep an amount or a mask, if it is the same at all steps and its values are what its name says."""
        array = self._first.variables[name]
        dims = tuple(dim for dim in array.dims if dim != self._grid.time)
        if self._grid.time in array.dims:
            read, is_fixed = self._steps.find(name, dims)
            values = np.asarray(read(0), array.dtype)
        else:
            values, is_fixed = np.asarray(self._steps.load(array).values), True
        if not is_fixed or not power and not _is_class(values):
            self.left_out.append(str(name))
            return
        axes = tuple(place for place, dim in enumerate(dims) if dim in self._on_grid)
        new = share_cells(values, axes, self._grid.scale, power)
        attrs, encoding = array.attrs, {key: value for key, value in array.encoding.items()
                                        if key in (*KEPT_ENCODING, *PACKING, "_Unsigned")}
        if power:
            attrs, left_out = rewrite(attrs, "field", self._grid, self._ends)
            self._tell(name, left_out)
            encoding = kept_encoding(array)
            new = new.astype(encoding.get("dtype", np.float64))
        self._kept[name] = xarray.Variable(dims, new, attrs, encoding or {"_FillValue": None})

    # what does not

    def _keep(self, name: Hashable) -> None:
        array, time = self._first.variables[name], self._grid.time
        if self._on_grid & set(array.dims):
            found = self._class_of(name)
            if found.kind == "share":
                self._keep_share(name, found.power)
            else:
                self.left_out.append(str(name))
            return
        everywhere = [dataset.variables[name] for dataset in self._datasets if name in dataset.variables]
        if not self._has_time or time not in array.dims:
            everywhere = [self._steps.load(one) for one in everywhere]
        if array.attrs.get("cf_role") in TOPOLOGIES:
            self.left_out.append(str(name))
        elif self._has_time and time in array.dims:
            self._keep_in_time(name, [one.transpose(time, ...) for one in everywhere])
        elif array.ndim == 0 and (not self._has_time and name == time or not _are_equal(everywhere)):
            self._keep_in_time(name, [one.set_dims({time: self._steps.length(dataset)}) for one, dataset
                                      in zip(everywhere, self._datasets, strict=False)])
        elif _are_equal(everywhere):
            is_mapping = name in self._named_by("grid_mapping") or any(
                key in array.attrs for key in MAPPING_KEYS)
            attrs, left_out = (rewrite(array.attrs, "mapping", self._grid, self._ends) if is_mapping
                               else (array.attrs, []))
            self._tell(name, left_out)
            self._kept[name] = xarray.Variable(array.dims, array.values, attrs, array.encoding)
        else:
            self.left_out.append(str(name))

    def _keep_in_time(self, name: Hashable, arrays: list[xarray.Variable]) -> None:
        """Keep a variable over time, which may be spread over several files; one that a file lacks is left out."""
        if len(arrays) < len(self._datasets) or len({one.dims for one in arrays}) > 1:
            self.left_out.append(str(name))
            return
        joined = xarray.Variable.concat([self._steps.load(one).to_base_variable() for one in arrays], self._grid.time)
        joined = joined.isel({self._grid.time: slice(self._frames.start, self._frames.stop)})
        joined.encoding = common_encoding([one.encoding for one in arrays])
        if not any(key in joined.encoding for key in PACKING) and any(key in arrays[0].encoding for key in PACKING):
            joined.attrs = {key: value for key, value in joined.attrs.items() if key not in LIMITS}
        self._kept[name] = joined

    # the whole

    def _finish(self) -> None:
        """Write the attributes of the file and of the field, and correct the names in all attributes."""
        first = self._first
        of_file, left_out = rewrite(first.attrs, "file", self._grid, self._ends)
        self._tell(None, left_out)
        fields = [first[name].variable for name in self._variables]
        dims = {dim for array in (*self._kept.values(), *fields) for dim in array.dims}
        present = {str(name) for name in (*self._kept, *dims, *self._variables)}
        known = {str(name) for name in (*first.variables, *first.sizes)}
        self.attrs = {}
        for variable in self._variables:
            attrs, left_out = rewrite(first[variable].attrs, "field", self._grid, self._ends)
            self._tell(variable, left_out)
            attrs, changed = correct_names(attrs, present, known)
            self._tell(variable, [key for key in changed if key != "coordinates"])
            attrs.pop("coordinates", None)  # the library writes it
            self.attrs[variable] = attrs
        for name, array in self._kept.items():
            # the reader leaves a _FillValue among the attributes if it is none
            attrs = {key: value for key, value in array.attrs.items() if key != "_FillValue"}
            array.attrs, changed = correct_names(attrs, present, known)
            self._tell(name, [key for key in changed if key not in ("coordinates", "bounds")])
            named, _ = correct_names({"coordinates": array.encoding.pop("coordinates", "")}, present, known)
            array.encoding |= named
            stored = np.dtype(array.encoding.get("dtype", array.dtype))
            if stored.kind == "f":
                array.encoding["dtype"] = float_of_netcdf(stored)
        coordinates = [name for name in self._kept
                       if name in first.coords or name in self._named or name in self._positions]
        self.dataset = xarray.Dataset(self._kept, attrs=of_file).set_coords(coordinates)

    def _named_by(self, attribute: str) -> set[str]:
        """Return the names in an attribute, of any variable of the field, that names variables."""
        return {name for variable in self._variables for name in _named_by(self._first[variable], attribute)}

    def _tell(self, name: Hashable | None, attributes: list[str]) -> None:
        of = "" if name is None else f" of {name}"
        self.left_out += [f"attribute {one}{of}" for one in attributes if not STORAGE.fullmatch(plain(one))]


def _named_by(array: xarray.DataArray, attribute: str) -> set[str]:
    """Return the names in an attribute that names variables, wherever the library has put it."""
    text = array.encoding.get(attribute) or array.attrs.get(attribute) or ""
    return {word for word in str(text).split() if not word.endswith(":")}


def _is_class(values: np.ndarray) -> bool:
    """Check for whole numbers that are not an index, in which each is there once."""
    if values.dtype.kind == "b":
        return True
    found = values[np.isfinite(values)]
    return bool((found % 1 == 0).all()) and not (found.size > 2 and len(np.unique(found)) == found.size)


def _are_equal(arrays: list[xarray.Variable]) -> bool:
    return all(one.dims == arrays[0].dims and one.equals(arrays[0]) for one in arrays[1:])
