"""Decides in which directions a field goes on at the other side: said by the user, or found by its longitudes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpc_vsr.media.reading import Facts, Periodic
from hpc_vsr.system.errors import InputError

DEGREES = {"degrees_east", "degree_east", "degrees_E", "degree_E", "degreesE", "degreeE"}  # CF 1.11, section 4.2
NORTH = {"degrees_north", "degree_north", "degrees_N", "degree_N", "degreesN", "degreeN"}
NEAR = 0.1  # of a cell
LEAST_COLUMNS = 8


class Span(NamedTuple):
    """What longitudes cover: degrees with the cells at both ends, and whether the first one is repeated at the end."""

    degrees: float
    is_circle: bool
    is_repeated: bool


def find_periodic(array, asked: Periodic, where: str) -> Facts:
    """Return the directions in which a field goes on at the other side, with a line and warnings.

    Parameters
    ----------
    array : xarray.DataArray
        The variable over (time, y, x) with its coordinates.
    asked : {"auto", "none", "x", "y", "xy"}
    where : str
        Path of the file, for messages.

    Raises
    ------
    InputError
        If the user says that an axis is periodic and its coordinate shows that it is not.
    """
    if asked == "none":
        return Facts()
    found, lines, warnings = "", [], []
    for axis, name in zip("xy", (array.dims[2], array.dims[1]), strict=True):
        span = longitudes_of(array, name)
        if axis in asked and asked != "auto":
            _check_asked(array, axis, name, span, where)
            found += axis
            lines.append(f"periodic: {axis} ({name}), as asked for")
        elif asked == "auto" and span is not None and span.is_circle:
            found += axis
            lines.append(f"periodic: {axis} ({name} goes around the globe)")
        elif asked == "auto" and span is not None and span.is_repeated:
            warnings.append(f"{where}: {name} has its first longitude again at the end, so that it is not taken as "
                            "periodic and has a seam; leave the last column out, such as with ncks -d "
                            f"{name},0,{array.sizes[name] - 2}")
    return Facts(periodic=found, lines=lines, warnings=warnings)


def longitudes_of(array, name) -> Span | None:
    """Return what the longitudes along a dimension cover; None if it has none, or they are not evenly spaced."""
    if name not in array.coords or array.coords[name].ndim != 1 or array.coords[name].dtype.kind not in "fiu":
        return None
    axis = array.coords[name]
    if str(axis.attrs.get("units")) not in DEGREES and axis.attrs.get("standard_name") != "longitude":
        return None
    values = np.asarray(axis.values, np.float64)
    if len(values) < LEAST_COLUMNS or not np.isfinite(values).all():
        return None
    values = np.unwrap(values, period=360)
    steps = np.diff(values)
    step = abs(values[-1] - values[0]) / (len(values) - 1)
    if step == 0 or np.abs(np.abs(steps) - step).max() > NEAR * step:
        return None
    between = abs(values[-1] - values[0])
    return Span(between + step, abs(between + step - 360) <= NEAR * step, abs(between - 360) <= NEAR * step)


def join_facts(*several: Facts) -> Facts:
    """Return all facts as one: the union of their breaks and empty frames, and all lines and warnings."""
    return Facts(breaks=tuple(sorted({index for facts in several for index in facts.breaks})),
                 empty=tuple(sorted({index for facts in several for index in facts.empty})),
                 periodic="".join(axis for axis in "xy" if any(axis in facts.periodic for facts in several)),
                 lines=tuple(line for facts in several for line in facts.lines),
                 warnings=tuple(line for facts in several for line in facts.warnings))


def fill_from_nearest(values: np.ndarray, valid: np.ndarray, periodic: str = "") -> np.ndarray:
    """Return (h, w) values with the nearest valid one where there is none, also across the ends of periodic axes."""
    from scipy.ndimage import distance_transform_edt  # slow to import, and most fields have no gaps

    margins = [side // 2 * (axis in periodic) for axis, side in zip("yx", valid.shape, strict=True)]
    around = np.pad(~valid, [(margin, margin) for margin in margins], "wrap")
    nearest = distance_transform_edt(around, return_distances=False, return_indices=True)
    inside = [slice(margin, margin + side) for margin, side in zip(margins, valid.shape, strict=True)]
    rows, columns = ((places[tuple(inside)] - margin) % side
                     for places, margin, side in zip(nearest, margins, valid.shape, strict=True))
    return values[rows, columns]


def _check_asked(array, axis: str, name: str, span: Span | None, where: str) -> None:
    if span is not None and not span.is_circle:
        more = "; leave out the last column, which repeats the first" if span.is_repeated else ""
        raise InputError(f"--periodic {axis}: {name} of {where} spans {span.degrees:.6g} degrees with its cells, and "
                         f"not 360{more}; choose --periodic none")
    if name in array.coords and str(array.coords[name].attrs.get("units")) in NORTH:
        raise InputError(f"--periodic {axis}: {name} of {where} are latitudes, which end at the poles; leave {axis} "
                         "out")
