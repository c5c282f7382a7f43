"""Writes an enlarged field as NetCDF or Zarr.

`hpc_vsr.media.field_beside` gathers what the source has beside its variables.
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
import warnings
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from pathlib import Path

import dask
import numpy as np
import xarray

from hpc_vsr.media.field_beside import Beside
from hpc_vsr.media.field_classes import Grid
from hpc_vsr.media.field_order import InOrder, frame_by_frame
from hpc_vsr.media.field_several import FieldsSource
from hpc_vsr.media.field_source import FieldSource
from hpc_vsr.media.field_storage import kept_encoding
from hpc_vsr.system.errors import Failed, InputError, storage_failure
from hpc_vsr.system.files import no_folder, partial_path, write_whole

SUFFIXES = (".nc", ".nc4", ".zarr")
MARK = "hpc_vsr_upscaling"  # attribute that identifies the input, network and settings of an enlarged field


def is_written(path: Path, mark: str) -> bool:
    """Check whether a field with this mark is there already.

    Raises `InputError` if something else is there, or if no field can be written there.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a field is written as {', '.join(SUFFIXES)}; choose one of these endings")
    if not path.parent.is_dir():
        raise InputError(f"{no_folder(path.parent)}; create it or choose another --output")
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


def write_field(path: Path, source: FieldSource | FieldsSource, frames: range, scale: int,
                frame: Callable[[int], np.ndarray | list[np.ndarray]], history: str, mark: str, are_errors: bool = False
                ) -> list[str]:
    """Write a field frame by frame, in the memory of a few frames; it appears whole or not at all.

    Parameters
    ----------
    path : Path
        .nc or .zarr.
    source : FieldSource or FieldsSource
        The field that was enlarged, of one variable or several.
    frames : range
    scale : int
    frame : callable
        Returns the enlarged frame of a number, (scale h, scale w) in physical units, NaN where there is none; float32,
        or float64 if an offset was subtracted from the source. Of several variables it is a list of these. It is
        called once for each frame, in their order.
    history : str
        Line that is put before the history of the source.
    mark : str
        Text by which `is_written` recognises the field.
    are_errors : bool
        Whether the frames are the standard deviations of the enlarged ones; the variables are NAME_error then.

    Returns
    -------
    list of str
        Variables and attributes of the source that are left out, because they belong to its grid.
    """
    datasets = _on_one_clock(source.open_datasets())
    time, rows, columns = source.description["dimensions"]
    grid = Grid(time, rows, columns, source.height, source.width, scale)
    beside = Beside(datasets, source.files, source.channels, frames, grid)
    dataset = beside.dataset
    size, encodings = (scale * source.height, scale * source.width), {}
    planes = InOrder(frame, len(source.channels))
    names = [f"{name}_error" for name in source.channels] if are_errors else source.channels
    for channel, (variable, own) in enumerate(zip(names, source.channels, strict=True)):
        original = datasets[0][own]
        encoding = _encoding(original.variable, source.offsets[channel] != 0)
        array = xarray.DataArray(planes.lazy(frames, channel, size, encoding), dims=(time, rows, columns),
                                 attrs=_as_error(beside.attrs[own], own) if are_errors else beside.attrs[own])
        # dimensions of length one stay where they are, if time, rows and columns are in this order
        single = {dim: 1 for dim in original.dims if dim not in array.dims}
        order = original.dims if tuple(dim for dim in original.dims if dim in array.dims) == array.dims else (
            time, *single, rows, columns)
        dataset[variable] = array.expand_dims(single).transpose(*order)
        dataset[variable].encoding = dict(encoding)
        encodings[variable] = {**encoding, "chunksizes": (*(1 for _ in order[:-2]), *size)}
    _name_coordinates(dataset, names, source.chosen)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    dataset.attrs["history"] = "\n".join(filter(None, [f"{now}: {history}", dataset.attrs.get("history")]))
    dataset.attrs[MARK] = mark
    with dask.config.set(scheduler=frame_by_frame):
        if path.suffix.lower() == ".zarr":
            _write_zarr(dataset, path)
        else:
            with write_whole(path) as temporary, _netcdf_refusals(path):
                dataset.to_netcdf(temporary, format="NETCDF4", engine="netcdf4",
                                  unlimited_dims=_unlimited(datasets[0], time), encoding=encodings)
    return beside.left_out


def _as_error(attrs: dict, name: str) -> dict:
    """Return the attributes of the error of a variable, in its units; the standard name has CF's modifier."""
    kept = {key: attrs[key] for key in ("units", "grid_mapping") if key in attrs}
    if "standard_name" in attrs:
        kept["standard_name"] = f"{attrs['standard_name']} standard_error"
    return {"long_name": f"predicted error (standard deviation) of {attrs.get('long_name', name)}", **kept}


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


def _unlimited(dataset: xarray.Dataset, time: Hashable) -> list[Hashable]:
    return [time] if time in dataset.encoding.get("unlimited_dims", ()) else []


def _encoding(array: xarray.Variable, is_double: bool) -> dict:
    """Return how the field is stored: as a float of the source, with its fill value; otherwise float32, and NaN.

    A fill value of 0 would hide zeros. NetCDF knows one fill value; a missing_value beside it has to be the same.
    """
    kept = kept_encoding(array)
    dtype = np.dtype(kept.get("dtype", np.float32)).newbyteorder("=")
    dtype = np.dtype(np.float64) if is_double else max(dtype, np.dtype(np.float32), key=lambda one: one.itemsize)
    for key in ("_FillValue", "missing_value"):
        try:
            fill = dtype.type(np.ravel(kept[key])[0])
        except (KeyError, IndexError, ValueError, TypeError):
            continue
        if fill != 0:
            same = {"missing_value": fill} if "missing_value" in kept else {}
            return {"dtype": dtype, "_FillValue": fill, **same}
    return {"dtype": dtype, "_FillValue": dtype.type(np.nan)}


def _name_coordinates(dataset: xarray.Dataset, variables: Sequence[str], chosen: Sequence[Collection[str]]) -> None:
    """Let no variable name the coordinate of a choice (--select) that was made only in other variables."""
    for variable, own in zip(variables, chosen, strict=True):
        foreign = {name for names in chosen for name in names} - set(own)
        if foreign & set(dataset[variable].coords):
            names = [str(name) for name in dataset[variable].coords if name not in (*foreign, *dataset.dims)]
            dataset[variable].encoding["coordinates"] = " ".join(names) or None


def _on_one_clock(datasets: list[xarray.Dataset]) -> list[xarray.Dataset]:
    """Decode the time stamps of files that count time from different moments; keep the units of the first file."""
    clocks = [{name: (array.attrs["units"], array.attrs.get("calendar")) for name, array in dataset.variables.items()
               if " since " in str(array.attrs.get("units"))} for dataset in datasets]
    if all(clock == clocks[0] for clock in clocks):
        return datasets
    return [xarray.decode_cf(dataset, mask_and_scale=False, decode_timedelta=False) for dataset in datasets]
