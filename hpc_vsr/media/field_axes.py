"""Decides which dimension of a field is time, which are rows and columns, and what is chosen of the others.

The CF attributes of a dimension's coordinate decide (axis, standard_name, units, positive), then its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpc_vsr.system.errors import InputError

STANDARD_NAMES = {
    "time": "time", "forecast_reference_time": "time", "forecast_period": "lead", "latitude": "y", "longitude": "x",
    "grid_latitude": "y", "grid_longitude": "x", "projection_y_coordinate": "y", "projection_x_coordinate": "x",
    "realization": "other", "air_pressure": "z", "altitude": "z", "height": "z", "depth": "z",
    "model_level_number": "z", "sea_floor_depth": "z", "radiation_wavelength": "other"}
# names of dimensions in NetCDF, GRIB (also as NCL and cfgrib write it), ROMS, NEMO, MOM, MITgcm, WRF, rasters, images
NAMES = (
    ("lead", r"steps?|\w*lead\w*|forecast_(period|hour)\w*|prediction_timedelta"),
    ("time", r"n?t|n?times?\d*|\w+_times?\d*(_\w+)?|times?_\w+|[a-z]*times?\d*|time_?steps?|dates?|datetimes?|"
             r"n?frames?|snapshots?|records?|years?|yrs?|months?|weeks?|days?|hours?|seasons?"),
    ("other", r"number|n?members?|ens(emble)?s?(_\w+)?|realizations?|bands?|channels?|n?components?|\w*wavelengths?|"
              r"frequency|frequencies|species|tiles?|faces?"),
    ("z", r"n?z|z[_\d]\w*|z[cglstuw]|\w*lev(el)?s?(_\w+|\d+)?|lv_\w+|plev\w*|pressure\w*|isobaric\w*|\w*depth\w*|"
          r"\w*height\w*|alt(itude)?s?|elevations?|n?layers?|bottom_top\w*|s_(rho|w)|s[tw]_ocean|sigma\w*|hybrid\w*|"
          r"soil_\w+"),
    ("y", r"n?y|y[_\d]\w*|y[a-z]|y[tu]_ocean|([a-z0-9]+_)?[nrxy]?lat(itude)?s?(_\w+|\d+)?|south_north\w*|"
          r"eta_(rho|u|v|psi)|n?j|j[_\d]\w*|jc|n?rows?|northings?"),
    ("x", r"n?x|x[_\d]\w*|x[a-z]|x[tu]_ocean|([a-z0-9]+_)?[nrxy]?lon(gitude)?s?(_\w+|\d+)?|west_east\w*|"
          r"xi_(rho|u|v|psi)|n?i|i[_\d]\w*|ic|n?col(umn)?s?|eastings?|width"),
)
UNITS = (
    ("time", r"\w+\s+since\s.*|(day|month|year) as %.*"),
    ("y", r"degrees?_?n(orth)?"),
    ("x", r"degrees?_?e(ast)?"),
    ("z", r"h?pa|m?bars?|mb|millibars?|levels?|layers?|sigma_level"),
)
MOST_SHOWN = 8  # values of a dimension in a message; of more, the first and last ones are shown


class MustChoose(InputError):
    """A dimension has several values, of which one must be chosen."""


@dataclass(frozen=True)
class Axes:
    """What the dimensions of a variable are.

    Attributes
    ----------
    time : str or None
        None if the variable has no time, so that each file is one frame.
    plane : tuple of str
        The dimensions of a frame, rows and columns, in the order of the file.
    chosen : dict
        Position that is taken in each dimension of which the user chose a value. Others have one value.
    selection : dict
        The values that the user chose, numbers or texts, by the names that he gave.
    lines : list of str
        The choice as text: "level=500 of 850, 500, 250".
    """

    time: str | None
    plane: tuple[str, str]
    chosen: dict[str, int] = field(default_factory=dict)
    selection: dict[str, float | str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def read_selection(text: str | None) -> dict[str, str]:
    """Return the values of --select by dimension: "level=500,number=0" is {"level": "500", "number": "0"}."""
    wanted: dict[str, str] = {}
    for part in text.split(",") if text is not None else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise InputError(f"--select {text}: give a value for each dimension, such as level=500,number=0")
        if name in wanted:
            raise InputError(f"--select {text}: gives {name} twice; a frame is made of one value")
        wanted[name] = value
    return wanted


def kind_of_name(name: str) -> str:
    """Return what a dimension of this name is: time, lead, y, x, z, other, or "" if the name does not tell."""
    plain = re.sub(r"^g\d+_", "", name.lower())
    return next((kind for kind, pattern in NAMES if re.fullmatch(pattern, plain)), "")


def kind_of(dataset: Any, name: str) -> str:
    """Return what a dimension is by the attributes of its coordinate, else by its name; see `kind_of_name`."""
    own = dataset.variables.get(name)
    attributes = own.attrs if own is not None and own.dims == (name,) else {}
    axis = str(attributes.get("axis", attributes.get("cartesian_axis", ""))).strip().upper()
    if axis in ("T", "Z", "Y", "X"):
        return {"T": "time"}.get(axis, axis.lower())
    standard = str(attributes.get("standard_name", "")).split(" ")[0].lower()
    if standard in STANDARD_NAMES:
        return STANDARD_NAMES[standard]
    if standard.startswith(("atmosphere_", "ocean_")) and standard.endswith(("_coordinate", "_layer", "_level")):
        return "z"
    units = str(attributes.get("units", "")).strip().lower()
    found = next((kind for kind, pattern in UNITS if re.fullmatch(pattern, units)), "")
    if "positive" in attributes and found not in ("time", "y", "x"):
        return "z"
    return found or kind_of_name(str(name))


def find_axes(dataset: Any, name: str, wanted: Mapping[str, str]) -> Axes:
    """Decide which dimensions of a variable are time and the frame, and where the others are cut.

    Parameters
    ----------
    dataset : xarray.Dataset
    name : str
        Variable, with at least two dimensions.
    wanted : mapping
        Values that the user chose, by the name of a dimension or of a coordinate along it; see `read_selection`.

    Raises
    ------
    InputError
        If a value is not there, one must be chosen, or it cannot be told which dimension is time. The text begins
        with the name of the variable.
    """
    array = dataset[name]
    if len(set(array.dims)) < array.ndim:
        raise InputError(f"{name} has dimensions {_dims(array)}; it must hold numbers over (time, y, x)")
    chosen, selection, lines = _select(dataset, array, wanted)
    left = [dim for dim in array.dims if dim not in chosen]
    kinds = {dim: kind_of(dataset, dim) for dim in left}
    if "width" in kinds and "height" in kinds:  # of a picture
        kinds["height"] = "y"
    for dim in (*left[1:], *left[:1]):  # dimensions of one value, but not time: a file may hold one step
        if len(left) > 3 and array.sizes[dim] == 1 and kinds[dim] != "time":
            left.remove(dim)
    time = _find_time(name, array, left, kinds)
    rest = [dim for dim in left if dim != time and not (array.sizes[dim] == 1 and kinds[dim] == "time")]
    if len(rest) < 2:
        raise InputError(f"{name} has dimensions {_dims(array)}; it must hold numbers over (time, y, x)")
    if time is None and len(rest) == 3 and kinds[rest[0]] == "" and [kinds[dim] for dim in rest].count("") == 1:
        time, *rest = rest
    plane = _find_plane(rest, kinds)
    others = [dim for dim in rest if dim not in plane]
    unknown = [dim for dim in others if kinds[dim] == ""]
    if time is None and unknown:
        time = unknown[0]
        others.remove(time)
    elif time is None and any(kinds[dim] in ("y", "x") for dim in others):
        raise InputError(f"{name} has dimensions {_dims(array)}, and none of them is known as time; rename the one "
                         "that is to time")
    if any(array.sizes[dim] == 0 for dim in array.dims if dim != time):
        raise InputError(f"{name} has dimensions {_dims(array)}: it has no values")
    many = [dim for dim in others if array.sizes[dim] > 1]
    if many:
        raise MustChoose(_what_to_choose(dataset, array, many, wanted, time))
    return Axes(time, (plane[0], plane[1]), chosen, selection, lines)


def _dims(array: Any) -> str:
    return f"({', '.join(f'{dim}: {size}' for dim, size in zip(array.dims, array.shape, strict=True))})"


def _find_time(name: str, array: Any, left: list[str], kinds: Mapping[str, str]) -> str | None:
    """Return the dimension that is time by its attributes or name; a forecast's steps are, if time has one value."""
    times = [dim for dim in left if kinds[dim] == "time"]
    leads = [dim for dim in left if kinds[dim] == "lead"]
    long = [dim for dim in times if array.sizes[dim] > 1]
    if len(long) > 1:
        raise InputError(f"{name} has {len(long)} dimensions of time, {' and '.join(long)}; choose one value of "
                         f"{' or '.join(long)}, such as --select {long[0]}=VALUE")
    if long:
        return long[0]
    if leads and (not times or any(array.sizes[dim] > 1 for dim in leads)):
        return max(leads, key=lambda dim: array.sizes[dim])
    return times[0] if times else None


def _find_plane(rest: list[str], kinds: Mapping[str, str]) -> list[str]:
    """Return the two dimensions of a frame: y and x, else the last two that are no level, member or the like."""
    rows, columns = ([dim for dim in rest if kinds[dim] == kind] for kind in "yx")
    if len(rest) > 2 and rows and columns:
        return sorted((rows[-1], columns[-1]), key=rest.index)
    free = [dim for dim in rest if kinds[dim] not in ("z", "other", "lead")]
    return free[-2:] if len(free) >= 2 else rest[-2:]


def _select(dataset: Any, array: Any, wanted: Mapping[str, str]) -> tuple[dict, dict, list[str]]:
    """Return the positions of the wanted values, the values, and a line about each."""
    chosen: dict[str, int] = {}
    selection: dict[str, float | str] = {}
    lines = []
    for key, text in wanted.items():
        along = dataset.variables.get(key)
        dim = key if key in array.dims else along.dims[0] if along is not None and along.ndim == 1 else None
        if dim not in array.dims or dim in chosen:
            raise InputError(f"--select {key}={text}: {array.name} has no further dimension {key}; it has dimensions "
                             f"{_dims(array)}")
        values = _values(dataset, array, key if along is not None and along.dims == (dim,) else dim)
        chosen[dim] = _position(key, text, values)
        selection[key] = values[chosen[dim]]
        lines.append(f"{key}={_text(selection[key])} of {_list_values(values)}")
    return chosen, selection, lines


def _values(dataset: Any, array: Any, name: str) -> list[float | str]:
    """Return the values of a coordinate; the positions 0, 1, ... if there is none."""
    if name not in dataset.variables or dataset.variables[name].ndim != 1:
        return list(range(array.sizes[name]))
    values = dataset.variables[name].values
    if values.dtype.kind in "fiu":
        return values.tolist() if values.dtype != np.float32 else [float(str(value)) for value in values]
    return [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values]


def _position(key: str, text: str, values: list) -> int:
    """Return the position of the value that a text names; `InputError` with the nearest ones if it is not there."""
    if not values or isinstance(values[0], str):
        found = [index for index, value in enumerate(values) if value.strip() == text]
    else:
        try:
            number = float(text)
        except ValueError:
            raise InputError(f"--select {key}={text}: {key} has numbers: {_list_values(values)}") from None
        found = [index for index, value in enumerate(values) if np.isclose(value, number, rtol=1e-6, atol=0)]
        if not found:
            nearest = sorted(values, key=lambda value: abs(value - number))[:2]
            raise InputError(f"--select {key}={text}: {key} has no such value; the nearest are "
                             f"{' and '.join(map(_text, nearest))}")
    if len(found) != 1:
        raise InputError(f"--select {key}={text}: {key} has {'no such value' if not found else 'it several times'}; "
                         f"it has {_list_values(values)}")
    return found[0]


def _what_to_choose(dataset: Any, array: Any, dims: list[str], wanted: Mapping[str, str], time: str | None) -> str:
    values = {dim: _values(dataset, array, dim) for dim in dims}
    listed = " and ".join(f"several values of {dim} ({_list_values(values[dim])})" for dim in dims)
    example = ",".join([*(f"{key}={text}" for key, text in wanted.items()),
                        *(f"{dim}={_text(values[dim][0])}" for dim in dims)])
    steps = f"; if the steps of {dims[0]} are frames, rename it to time" if time is None else ""
    return f"{array.name} has {listed}; choose one{' of each' * (len(dims) > 1)}, such as --select {example}{steps}"


def _list_values(values: list) -> str:
    if len(values) <= MOST_SHOWN:
        return ", ".join(map(_text, values))
    return f"{', '.join(map(_text, values[:3]))}, ... {_text(values[-1])}, {len(values)} values"


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.10g}"
