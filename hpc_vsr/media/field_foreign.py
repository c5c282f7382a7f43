"""Says what a file is that cannot be read as a field, by its first bytes, and what converts it."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

MOST_LETTERS = 100  # of what a library says
WITH_NUMPY = "write it with xarray, such as by xarray.DataArray({}, dims=('time', 'y', 'x'), name='v').to_netcdf('{}')"
WITH_VTK = "write it as NetCDF, such as with ParaView, or with numpy and xarray"

# (first bytes as a pattern, what the file is, what to do with it); {0} is its name, {1} the name of a NetCDF file
KINDS = (
    (b"GRIB", "a GRIB file", "convert it, such as with 'cdo -f nc4 copy {0} {1}' or 'grib_to_netcdf -o {1} {0}'"),
    (b"\x0e\x03\x13\x01", "an HDF4 file", "convert it, such as with 'h4tonccf_nc4 {0} {1}' or h4toh5"),
    (b"\x93NUMPY", "a NumPy array", WITH_NUMPY.format("numpy.load('{0}')", "{1}")),
    (rb"PK\x03\x04", "a ZIP archive", "unpack it; if it is a .npz of NumPy, "
                                     + WITH_NUMPY.format("numpy.load('{0}')['NAME']", "{1}")),
    (b"# vtk", "a VTK file", WITH_VTK),
    (rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<VTKFile", "a VTK file", WITH_VTK),
    (b"\x1f\x8b", "compressed by gzip", "unpack it with 'gunzip {0}'"),
    (b"BZh", "compressed by bzip2", "unpack it with 'bunzip2 {0}'"),
    (rb"\x28\xb5\x2f\xfd", "compressed by Zstandard", "unpack it with 'unzstd {0}'"),
    (rb"II[*+]\x00|MM\x00[*+]", "a TIFF file", "give it by --frames"),
)


def explain(path: Path, error: Exception) -> str:
    """Return why a file cannot be read, for a message: what it is, or what the library says."""
    start = b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(512)
    for mark, what, advice in KINDS:
        if re.match(mark, start, re.DOTALL):
            return f"is {what}, and not NetCDF, HDF5 or Zarr; {advice.format(path.name, path.stem + '.nc')}"
    said = next(iter(str(error).splitlines()), "").split(";")[0]
    if said.startswith("did not find a match"):
        said = f"it begins with {start[:8]!r}, as none of these does"
    return f"cannot be read as NetCDF, HDF5 or Zarr ({textwrap.shorten(said, MOST_LETTERS, placeholder=' ...')})"
