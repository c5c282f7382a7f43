"""Opens the files of a field as xarray data sets, whatever wrote them: engines, groups, patterns of names."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hpc_vsr.media import field_hdf5, field_zarr
from hpc_vsr.media.field_axes import kind_of_name
from hpc_vsr.media.field_foreign import explain
from hpc_vsr.media.field_missing import netcdf_fill
from hpc_vsr.media.order import natural_order
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import check_input_file, looked_in

NETCDF3 = (b"CDF\x01", b"CDF\x02")
NETCDF5 = b"CDF\x05"
MOST_LISTED = 30  # variables in a message


def list_field_files(path: Path) -> list[Path]:
    """Return the files that a path or a pattern names, in natural order; `InputError` if there is none."""
    if path.exists() or not any(mark in path.name for mark in "*?["):
        return [path]
    try:
        found = natural_order(path.parent.glob(path.name))
    except ValueError as error:
        raise InputError(f"{path}: is not a valid pattern ({error})") from None
    if not found:
        raise InputError(f"{path}: no file matches this pattern{looked_in(path)}")
    return found


def check_file(path: Path) -> None:
    """Raise `InputError` if a path is no file or Zarr store of a field."""
    if path.is_dir():
        if not field_zarr.is_store(path):
            raise InputError(f"{path}: is a folder, and no Zarr store; name the files in it, such as '{path}/*.nc'")
        field_zarr.check_store(path)
        return
    check_input_file(path, "a NetCDF, HDF5 or Zarr file")
    if field_hdf5.starts_with(path, field_hdf5.MATLAB_OLD):
        raise InputError(f"{path}: is a MATLAB file before version 7.3; write it with save(..., '-v7.3')")


def list_groups(path: Path) -> list[str]:
    """Return the groups of a file that hold arrays, "" for the top."""
    if path.is_dir():
        return field_zarr.list_groups(path)
    return field_hdf5.list_groups(path) if field_hdf5.is_hdf5(path) else [""]


def open_group(path: Path, group: str = "", **options: Any) -> Any:
    """Open a group as an xarray.Dataset, with the coordinates of the groups around it; times stay as stored.

    Raises
    ------
    InputError
        If xarray is not installed or the file cannot be read.
    """
    xarray = _import_xarray()
    options = {"decode_times": False, **options}
    try:
        dataset = _open_any(xarray, path, group, options)
        while group:
            group = group.rpartition("/")[0]
            around = _open_any(xarray, path, group, options)
            dataset = dataset.assign_coords({
                name: array for name, array in around.variables.items()
                if name not in dataset.variables and array.dims == (name,)
                and dataset.sizes.get(name) == len(array)})
    except InputError:
        raise
    except Exception as error:  # xarray passes on whatever its back end raises
        raise InputError(f"{path}: {explain(path, error)}") from None
    return dataset


def open_variable(path: Path, variable: str, **options: Any) -> tuple[Any, str]:
    """Return the data set that holds a variable, and the name of the variable in it.

    `variable` begins with its groups: tasks/vorticity. `InputError` lists what the file has if it has no such one.
    """
    dataset, group, name = open_group(path, **options), "", variable.strip("/")
    if name not in dataset.variables and "/" in name:
        group, _, name = name.rpartition("/")
        if group in list_groups(path) or _is_group(path, group):
            dataset = open_group(path, group, **options)
    full = f"{group}/{name}".lstrip("/")
    if not path.is_dir() and field_hdf5.is_hdf5(path):
        if name not in dataset.variables:
            field_hdf5.check_variable(path, full)
        dataset = _name_dimensions(path, dataset, full, name)
    if name not in dataset.variables:
        raise InputError(f"{path}: has no variable {variable!r}; it has: {list_contents(path)}")
    return dataset, name


def _is_group(path: Path, group: str) -> bool:
    with contextlib.suppress(InputError):
        return bool(open_group(path, group).variables)
    return False


def list_contents(path: Path) -> str:
    """Return the variables of all groups of a file with their dimensions, for a message."""
    found = []
    for group in list_groups(path):
        found += [f"{group}/{name}".lstrip("/") + str(tuple(map(str, array.dims)))
                  for name, array in open_group(path, group).data_vars.items() if array.ndim > 1 or not group]
    more = f" and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    return ", ".join(found[:MOST_LISTED]) + more or "none"


def look_at_file(path: Path, variable: str) -> list[str]:
    """Check that nothing of a variable is lost, and return warnings; `InputError` names a part or filter."""
    if path.is_dir():
        return field_zarr.look_for_absent(path, variable.strip("/"))
    return field_hdf5.check_variable(path, variable.strip("/")) if field_hdf5.is_hdf5(path) else []


def default_fill(path: Path, variable: str, dtype: np.dtype) -> int | None:
    """Return what the NetCDF library fills in where nothing of a variable was written; None if it fills in nothing."""
    if path.is_dir():
        return None
    if field_hdf5.is_hdf5(path):
        return field_hdf5.default_fill(path, variable)
    is_netcdf = any(field_hdf5.starts_with(path, mark) for mark in (*NETCDF3, NETCDF5))
    return netcdf_fill(dtype) if is_netcdf else None


def _import_xarray() -> Any:
    try:
        import xarray
    except ModuleNotFoundError:
        raise InputError("fields need xarray; install it with 'pip install hpc-vsr[fields]'") from None
    return xarray


def _open_any(xarray: Any, path: Path, group: str, options: dict) -> Any:
    if path.is_dir():
        field_zarr.check_store(path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*onsolidated metadata")  # the store is small enough without
            return xarray.open_dataset(path, engine="zarr", group=group or None, **options)
    if any(field_hdf5.starts_with(path, mark) for mark in NETCDF3):
        # the netCDF library reads zeros beyond the end of a truncated file
        return xarray.open_dataset(path, engine="scipy", **options)
    if not field_hdf5.is_hdf5(path):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*fails while guessing")  # a library that does not know the file
            return xarray.open_dataset(path, **options)
    return _open_hdf5(xarray, path, group or None, options)


def _open_hdf5(xarray: Any, path: Path, group: str | None, options: dict) -> Any:
    """Open a group by netCDF4, or by h5netcdf or h5py what netCDF4 cannot read."""
    with contextlib.suppress(ModuleNotFoundError):
        import hdf5plugin  # noqa: F401  (teaches h5py more filters)
    first = None
    for engine in field_hdf5.list_engines(path):
        more = {"phony_dims": "sort"} if engine == "h5netcdf" else {}
        try:
            return xarray.open_dataset(path, group=group, engine=engine, **more, **options)
        except Exception as error:  # whatever the back end raises
            first = first or error
    with field_hdf5.passing_damage():
        if field_hdf5.is_plain(path) and (dataset := _open_plainly(xarray, path, group or "")).variables:
            return xarray.decode_cf(dataset, **options)
    raise first


def _open_plainly(xarray: Any, path: Path, group: str) -> Any:
    """Open a group of plain HDF5, such as one whose axes are in another group, with dimensions by their labels."""
    import dask.array

    variables = {}
    for name, array in field_hdf5.list_arrays(path, group).items():
        labels = field_hdf5.read_labels(path, array.name)
        dims = [label or f"phony_dim_{index}" for index, (label, _) in enumerate(labels)]
        if len(set(dims)) == len(dims):
            chunks = tuple(1 if index < array.ndim - 2 else size for index, size in enumerate(array.shape))
            values = dask.array.from_array(array, chunks=chunks, meta=array.dtype.type(0)[None][:0])
            coordinates = {dim: (dim, scale) for dim, (_, scale) in zip(dims, labels, strict=True) if scale is not None}
            variables[name] = xarray.DataArray(values, dims=dims, coords=coordinates, attrs=array.attributes)
    return xarray.Dataset(variables)


def _name_dimensions(path: Path, dataset: Any, full: str, name: str) -> Any:
    """Name the dimensions of plain HDF5 by their labels, if these tell that the first one is not time."""
    if name not in dataset.variables or not all(str(dim).startswith("phony_dim_") for dim in dataset[name].dims):
        return dataset
    labels = [label for label, _ in field_hdf5.read_labels(path, full)]
    if not labels or not all(labels) or len(set(labels)) < len(labels) or kind_of_name(labels[0]) in ("time", ""):
        return dataset
    return dataset.rename_dims(dict(zip(dataset[name].dims, labels, strict=True)))
