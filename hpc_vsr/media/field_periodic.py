"""Decides in which directions a field goes on at the other side: said by the user, or found by its longitudes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from hpc_vsr.media.field_classes import STAGGERED, Described, measure_of
from hpc_vsr.media.reading import Facts, Periodic
from hpc_vsr.system.errors import InputError

NORTH = {"degrees_north", "degree_north", "degrees_N", "degree_N", "degreesN", "degreeN"}
NEAR = 0.1  # of a cell
LEAST_COLUMNS = 8
MOST_ROWS = 256  # of longitudes in two dimensions that are looked at
MOST_REPEATED = 2  # columns that ocean models add at the end
AGREEING = 0.75  # of the rows: around the poles of a grid some do not go around the globe


class Span(NamedTuple):
    """What longitudes cover: degrees with the cells at both ends, and how many columns at the end repeat the first."""

    degrees: float
    is_circle: bool
    num_repeated: int


def find_periodic(array, variables: Mapping, asked: Periodic, where: str) -> Facts:
    """Return the directions in which a field goes on at the other side, with a line and warnings.

    Parameters
    ----------
    array : xarray.DataArray
        The variable over (time, y, x) with its coordinates.
    variables : mapping
        The variables of its file by name, among which its longitudes are.
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
        span = longitudes_of(array, name, variables)
        if axis in asked and asked != "auto":
            _check_asked(array, axis, name, span, where)
            found += axis
            lines.append(f"periodic: {axis} ({name}), as asked for")
        elif asked == "auto" and span is not None and span.is_circle:
            found += axis
            lines.append(f"periodic: {axis} ({name} goes around the globe)")
        elif asked == "auto" and span is not None and span.num_repeated:
            last = "last column" if span.num_repeated == 1 else f"last {span.num_repeated} columns"
            warnings.append(f"{where}: {name} has its first longitude again at the end, so that it is not taken as "
                            f"periodic and has a seam; leave the {last} out, such as with ncks -d "
                            f"{name},0,{array.sizes[name] - 1 - span.num_repeated}")
        elif asked == "auto" and span is not None:
            lines.append(f"not periodic: {name} covers {span.degrees:.4g} degrees of longitude")
    return Facts(periodic=found, lines=lines, warnings=warnings)


def longitudes_of(array, name, variables: Mapping) -> Span | None:
    """Return what the longitudes along a dimension cover.

    They lie along it alone, or over the rows and the columns. None if there are none, or they tell nothing because
    they are not evenly spaced or differ between the rows.
    """
    names = [key for key in variables if key in array.coords or not STAGGERED.fullmatch(str(key))]
    names.sort(key=lambda key: key not in array.coords)  # its own first
    periods = {key: _period_of(key, variables[key]) for key in names}
    for key in (key for key in names if periods[key] and variables[key].dims == (name,)):
        return _span_of_axis(np.asarray(variables[key].values, np.float64) * (360 / periods[key]))
    plane = set(array.dims[1:])
    for key in (key for key in names if periods[key] and plane <= set(variables[key].dims) <= set(array.dims)):
        one = variables[key]
        across = next(iter(plane - {name}))
        rows = one.isel({dim: 0 for dim in one.dims if dim not in plane}).transpose(across, name)
        rows = rows[:: -(-len(rows) // MOST_ROWS)]
        return _span_of_rows(np.asarray(rows.values, np.float64) * (360 / periods[key]))
    return None


def _period_of(name: Any, array) -> float | None:
    """Return what a full circle of longitudes is in their units; None for anything else."""
    if array.dtype.kind not in "fiu":
        return None
    return measure_of(Described(str(name), array.dims, array.dtype, array.attrs)).period


def _span_of_axis(values: np.ndarray) -> Span | None:
    if len(values) < LEAST_COLUMNS or not np.isfinite(values).all():
        return None
    values = np.unwrap(values, period=360)
    steps = np.diff(values)
    step = abs(values[-1] - values[0]) / (len(values) - 1)
    if step == 0 or np.abs(np.abs(steps) - step).max() > NEAR * step:
        return None
    between = abs(values[-1] - values[0])
    return Span(between + step, abs(between + step - 360) <= NEAR * step, int(abs(between - 360) <= NEAR * step))


def _span_of_rows(values: np.ndarray) -> Span | None:
    """Return what longitudes (rows, columns) cover, if most rows agree; those with missing values are left out.

    The step from the last column to the first is compared with those beside it: it is as long where the rows close,
    and 0 or less where columns are repeated.
    """
    values = values[np.isfinite(values).all(axis=1)]
    if values.shape[0] == 0 or values.shape[1] < LEAST_COLUMNS:
        return None
    steps = np.diff(np.unwrap(values, period=360, axis=1), axis=1)
    between, beside = steps.sum(axis=1), (steps[:, 0] + steps[:, -1]) / 2
    is_moving = between * beside > 0
    if is_moving.mean() < AGREEING:
        return None
    between, beside = np.abs(between[is_moving]), np.abs(beside[is_moving])
    closing = np.rint((360 - between) / beside)
    usual = float(np.median(closing))
    if usual <= 1 and (closing == usual).sum() < AGREEING * len(values):
        return None
    num_repeated = int(1 - usual) if 1 - MOST_REPEATED <= usual <= 0 else 0
    return Span(float(np.median(between + beside)), usual == 1, num_repeated)


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
        more = "; leave out the last column, which repeats the first" if span.num_repeated == 1 else (
            f"; leave out the last {span.num_repeated} columns, which repeat the first" if span.num_repeated else "")
        raise InputError(f"--periodic {axis}: {name} of {where} spans {span.degrees:.6g} degrees with its cells, and "
                         f"not 360{more}; choose --periodic none")
    if name in array.coords and str(array.coords[name].attrs.get("units")) in NORTH:
        raise InputError(f"--periodic {axis}: {name} of {where} are latitudes, which end at the poles; leave {axis} "
                         "out")
