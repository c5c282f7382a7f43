"""One variable of a simulation (NetCDF, HDF5 or Zarr) as a source of float32 frames, read lazily through xarray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hpc_vsr.errors import InputError

NETCDF3 = (b"CDF\x01", b"CDF\x02")


class FieldSource:
    """A (time, y, x) variable; see `hpc_vsr.sources.Source`. Missing values are filled from the nearest valid one."""

    dtype = "float32"

    def __init__(self, path: Path, variable: str):
        self.files = [path]
        self._array = _open_variable(path, variable)
        self.channels = (variable,)
        self.num_frames, self.height, self.width = self._array.shape
        attributes = self._array.attrs
        self.description = {
            "variable": variable,
            "units": str(attributes.get("units", "1")),
            "long_name": str(attributes.get("long_name", variable)),
            "dimensions": [str(name) for name in self._array.dims],
        }

    def read(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield the fields start..stop-1, each (1, H, W) float32 in physical units, and the mask of valid values."""
        for index in range(start, stop):
            try:
                values = self._array[index].values.astype(np.float32)
            except (OSError, RuntimeError, ValueError) as error:  # what the back ends raise for a damaged file
                raise InputError(f"{self.files[0]}: frame {index} of {self.channels[0]} cannot be read "
                                 f"({str(error).splitlines()[0]}); the file is damaged, copy it again") from None
            if np.isinf(values).any():
                raise InputError(f"{self.files[0]}: {self.channels[0]} is infinite somewhere in frame {index}")
            valid = ~np.isnan(values)
            if valid.all():
                yield values[None], None
            elif not valid.any():
                raise InputError(f"{self.files[0]}: {self.channels[0]} has no valid value in frame {index}; "
                                 "cut the file to the frames that have data")
            else:
                yield _fill_from_nearest(values, valid)[None], valid


def open_field(path: Path, variable: str) -> FieldSource:
    """Open one variable of a NetCDF, HDF5 or Zarr file.

    Parameters
    ----------
    path : Path
    variable : str
        A variable with the dimensions (time, y, x); others of length one are dropped.

    Raises
    ------
    InputError
        If xarray is not installed, the file cannot be read, or the variable is missing or of another shape.
    """
    return FieldSource(path, variable)


def _open_variable(path: Path, variable: str):
    try:
        import xarray
    except ModuleNotFoundError:
        raise InputError("--field needs xarray; install it with 'pip install hpc-vsr[fields]'") from None
    try:
        dataset = _open_any(xarray, path)
    except Exception as error:  # xarray passes on whatever its back end raises
        raise InputError(f"{path}: cannot be read as NetCDF, HDF5 or Zarr "
                         f"({str(error).splitlines()[0].split(';')[0][:100]})") from None
    if variable not in dataset.data_vars:
        names = ", ".join(f"{name}{tuple(map(str, array.dims))}" for name, array in dataset.data_vars.items())
        raise InputError(f"{path}: has no variable {variable!r}; it has: {names or 'none'}")
    array = dataset[variable].squeeze(drop=True)
    if array.ndim != 3 or array.dtype.kind not in "fiu":
        raise InputError(f"{path}: {variable} is {array.dtype} with dimensions {tuple(map(str, array.dims))}; "
                         "numbers over (time, y, x) are wanted")
    return array


def _open_any(xarray, path: Path):
    if path.is_file():
        with path.open("rb") as stream:
            if stream.read(4) in NETCDF3:  # the netCDF library reads zeros beyond the end of a truncated one
                return xarray.open_dataset(path, engine="scipy")
    try:
        return xarray.open_dataset(path)
    except Exception:
        if path.suffix not in (".h5", ".hdf5", ".he5"):
            raise
        return xarray.open_dataset(path, engine="h5netcdf", phony_dims="sort")


def _fill_from_nearest(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt  # slow to import, and most fields have no gaps

    nearest = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return values[tuple(nearest)]
