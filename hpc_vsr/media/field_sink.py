"""Writes an enlarged field as NetCDF or Zarr.

It keeps everything that the source has beside the variable, and refines the coordinates cell by cell.
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
import warnings
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

import dask
import dask.array
import numpy as np
import xarray

from hpc_vsr.media.field_source import FieldSource
from hpc_vsr.system.errors import Failed, InputError, storage_failure
from hpc_vsr.system.files import partial_path, write_whole

SUFFIXES = (".nc", ".nc4", ".zarr")
MARK = "hpc_vsr_upscaling"  # attribute that identifies the input, network and settings of an enlarged field
KEPT_ENCODING = ("dtype", "_FillValue", "missing_value")  # of floats; the chunks are chosen anew
CLOCK = ("units", "calendar")
PACKING = ("scale_factor", "add_offset")
LONGITUDE = ("degrees_east", "degree_east", "degreesE", "degrees_E")


def is_written(path: Path, mark: str) -> bool:
    """Check whether a field with this mark is there already.

    Raises `InputError` if something else is there, or if no field can be written there.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a field is written as {', '.join(SUFFIXES)}; choose one of these endings")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: is not a folder; create it or choose another --output")
    if "\\" in str(path.absolute()) and path.suffix.lower() != ".zarr":
        raise InputError(f"{path.absolute()}: the NetCDF library cannot write to a path with a backslash; choose "
                         "another --output, or .zarr")
    if not path.exists():
        return False
    found = None
    with contextlib.suppress(Exception), xarray.open_dataset(path, decode_cf=False) as dataset:
        found = dataset.attrs.get(MARK)
    if found != mark:
        raise InputError(f"{path}: exists, but this command did not write it; delete it or choose another --output")
    return True


def write_field(path: Path, source: FieldSource, frames: range, scale: int, frame: Callable[[int], np.ndarray],
                history: str, mark: str) -> list[str]:
    """Write a field frame by frame, in the memory of a few frames; it appears whole or not at all.

    Parameters
    ----------
    path : Path
        .nc or .zarr.
    source : FieldSource
        The field that was enlarged.
    frames : range
    scale : int
    frame : callable
        Returns the enlarged frame of a number, (scale h, scale w) in physical units and the source's `output_dtype`,
        NaN where there is none.
    history : str
        Line that is put before the history of the source.
    mark : str
        Text by which `is_written` recognises the field.

    Returns
    -------
    list of str
        Variables of the source that are left out, because they lie on its grid.
    """
    try:
        # what the source has beside the variable
        dataset, left_out = _beside_variable(source, frames, scale)
        dataset.load()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{source.files[0]}: the data beside {source.channels[0]} cannot be read "
                         f"({str(error).splitlines()[0]}); the file is damaged, copy it again") from None
    variable = source.channels[0]
    # the variable as a lazy array: a frame is computed when the library writes its chunk
    original = source.open_datasets()[0][variable]
    time, rows, columns = source.description["dimensions"]
    size = scale * source.height, scale * source.width
    values = dask.array.map_blocks(
        lambda block: frame(int(block[0, 0, 0]))[None],
        dask.array.from_array(np.array(frames)[:, None, None], chunks=(1, 1, 1)),
        dtype=source.output_dtype, chunks=((1,) * len(frames), (size[0],), (size[1],)))
    array = xarray.DataArray(values, dims=(time, rows, columns), attrs=original.attrs)
    # the dimensions, encoding and history of the source
    single = {name: 1 for name in original.dims if name not in array.dims}
    dataset[variable] = array.expand_dims(single).transpose(*original.dims)
    dtype = source.output_dtype
    encoding = _kept_encoding(original.variable) or {"dtype": dtype, "_FillValue": dtype.type(np.nan)}
    dataset[variable].encoding = encoding
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    dataset.attrs["history"] = "\n".join(filter(None, [f"{now}: {history}", dataset.attrs.get("history")]))
    dataset.attrs[MARK] = mark
    # one frame at a time, in order
    with dask.config.set(scheduler="synchronous"):
        if path.suffix.lower() == ".zarr":
            _write_zarr(dataset, path)
        else:
            chunks = (*(1 for _ in original.dims[:-2]), *size)
            with write_whole(path) as temporary, _netcdf_refusals(path):
                dataset.to_netcdf(temporary, format="NETCDF4", engine="netcdf4",
                                  unlimited_dims=_unlimited(source, time),
                                  encoding={variable: {**encoding, "chunksizes": chunks}})
    return left_out


@contextlib.contextmanager
def _netcdf_refusals(path: Path) -> Iterator[None]:
    """Report what the NetCDF library refuses to write, such as a name with control characters, as `InputError`."""
    try:
        yield
    except InputError:  # from the source, which is read meanwhile
        raise
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        # xarray's own refusals begin with "Invalid "
        is_refusal = isinstance(error, UnicodeError) or str(error).startswith(("NetCDF:", "Invalid "))
        if not is_refusal or storage_failure(error):
            raise
        if "HDF error" in str(error):  # this is all that the library says of a full disk
            raise Failed(f"{path}: the NetCDF library could not write it ({error}), as happens on a full disk, over "
                         "a quota or over a limit of file sizes; make room and run the same command again") from None
        raise InputError(f"{path}: cannot be written with the names and attributes of the input ({error}); correct "
                         "them, or write .zarr") from None


def _write_zarr(dataset: xarray.Dataset, path: Path) -> None:
    temporary = partial_path(path)
    if temporary.is_symlink():
        temporary.unlink()
    shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Consolidated metadata")  # readers ignore it
            dataset.to_zarr(temporary)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unlimited(source: FieldSource, time: Hashable) -> list[Hashable]:
    return [time] if time in source.open_datasets()[0].encoding.get("unlimited_dims", ()) else []


def _beside_variable(source: FieldSource, frames: range, scale: int) -> tuple[xarray.Dataset, list[str]]:
    """Return all that the source has beside the variable: attributes, refined coordinates, variables off the grid."""
    datasets = _on_one_clock(source.open_datasets())
    first, variable = datasets[0], source.channels[0]
    time, rows, columns = source.description["dimensions"]
    grid = {rows, columns}
    # variables over time, which may be spread over several files
    on_time = {name: xarray.concat([dataset[name] for dataset in datasets], time)[frames.start : frames.stop]
               for name, array in first.variables.items() if time in array.dims and not grid & set(array.dims)}
    for name, array in on_time.items():
        array.encoding = _common_encoding([dataset.variables[name].encoding for dataset in datasets])
    # sort the rest: keep what is off the grid, refine coordinates and bounds, leave out other data on the grid
    kept, left_out, coordinates = {}, [], []
    bounds = {array.attrs.get("bounds") for name, array in first.variables.items() if grid & set(array.dims)}
    for name, array in first.variables.items():
        if name == variable:
            continue
        if name in first.coords:
            coordinates.append(name)
        if name in on_time:
            kept[name] = on_time[name].variable
        elif not grid & set(array.dims):
            kept[name] = array
        elif time not in array.dims and (name in first.coords or name in bounds):
            kept[name] = _refine(array, grid, scale, name in bounds)
        else:
            left_out.append(str(name))
    return xarray.Dataset(kept, attrs=first.attrs).set_coords([name for name in coordinates if name in kept]), left_out


def _on_one_clock(datasets: list[xarray.Dataset]) -> list[xarray.Dataset]:
    """Decode the time stamps of files that count time from different moments; keep the units of the first file."""
    clocks = [{name: (array.attrs["units"], array.attrs.get("calendar")) for name, array in dataset.variables.items()
               if " since " in str(array.attrs.get("units"))} for dataset in datasets]
    if all(clock == clocks[0] for clock in clocks):
        return datasets
    return [xarray.decode_cf(dataset, mask_and_scale=False, decode_timedelta=False) for dataset in datasets]


def _common_encoding(encodings: list[dict]) -> dict:
    """Return how a variable over time is stored: as in the first file.

    If the files differ, only the units and calendar of its times are kept.
    """
    kept = [{key: encoding[key] for key in (*KEPT_ENCODING, *PACKING) if key in encoding} for encoding in encodings]
    clock = {key: encodings[0][key] for key in CLOCK if key in encodings[0]}
    return {**clock, **(kept[0] if all(str(one) == str(kept[0]) for one in kept) else {})}


def _kept_encoding(array: xarray.Variable) -> dict:
    """Return how floats are stored; empty for integers and packed values, whose range new values may leave."""
    encoding = {key: value for key, value in array.encoding.items() if key in KEPT_ENCODING}
    encoding.setdefault("dtype", array.dtype)
    packed = np.dtype(encoding["dtype"]).kind != "f" or any(key in array.encoding for key in PACKING)
    return {} if packed else encoding


def _refine(array: xarray.Variable, grid: set, scale: int, is_bounds: bool) -> xarray.Variable:
    """Refine a coordinate or its bounds along the axes of the grid; longitudes may cross the end of the circle."""
    values, turns = np.asarray(array.values, np.float64), array.attrs.get("units") in LONGITUDE
    for axis, name in enumerate(array.dims):
        if name in grid:
            along = np.unwrap(values, period=360, axis=axis) if turns else values
            along = np.moveaxis(along, axis, 0)
            refined = split_bounds(along, scale) if is_bounds else split_cells(along, scale)
            values = np.moveaxis(refined, 0, axis)
    if turns and array.values.size:
        lowest = array.values.min() - 180.0 if array.values.min() < 0 else 0.0
        values = np.where(values >= lowest + 360, values - 360, values) if array.ndim > 1 else values
    kept = _kept_encoding(array)
    return xarray.Variable(array.dims, values.astype(kept.get("dtype", np.float64)), array.attrs,
                           kept or {"_FillValue": None})


def split_cells(centres: np.ndarray, parts: int) -> np.ndarray:
    """Split cells, given by their centres along the first axis, into `parts` each, and return the new centres.

    The outer edges stay. An edge lies half way between two centres; the outermost edges lie as far beyond the last
    centre as the neighbouring edge lies before it.
    """
    if len(centres) == 1:
        return np.repeat(centres, parts, 0)
    inner = (centres[1:] + centres[:-1]) / 2
    edges = np.concatenate([2 * centres[:1] - inner[:1], inner, 2 * centres[-1:] - inner[-1:]])
    begin, width = edges[:-1], np.diff(edges, axis=0)
    return np.stack([begin + width * (part + 0.5) / parts for part in range(parts)], 1).reshape(-1, *centres.shape[1:])


def split_bounds(bounds: np.ndarray, parts: int) -> np.ndarray:
    """Split (n, 2) bounds of cells into the bounds of `parts` parts of each."""
    begin, width = bounds[:, :1], np.diff(bounds, axis=1)
    edges = [np.concatenate([begin + width * part / parts, begin + width * (part + 1) / parts], 1)
             for part in range(parts)]
    return np.stack(edges, 1).reshape(-1, 2)
