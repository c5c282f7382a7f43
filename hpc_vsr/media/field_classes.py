"""Decides what a variable beside an enlarged field is, and so what becomes of it on the finer grid.

The metadata conventions for climate and forecast (CF) decide where a file follows them; otherwise the units and the
names that models use. What nothing identifies is unknown, and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hpc_vsr.media.field_grid import PLAIN, Measure

Kind = Literal["position", "share", "unknown"]

NORTH = re.compile(r"degrees?_?n(orth)?", re.IGNORECASE)
EAST = re.compile(r"degrees?_?e(ast)?", re.IGNORECASE)
RADIANS = ("radian", "radians", "rad")
DEGREES = ("", "1", "degree", "degrees", "deg", "arc_degree", "arc_degrees", *RADIANS)
LENGTH = r"(([kcdm]|kilo|centi|deci|milli)?(m|met(er|re)s?)|feet|foot|ft|us_survey_foot)"
LENGTH_UNITS = re.compile(LENGTH, re.IGNORECASE)
AREA_UNITS = re.compile(rf"({LENGTH}|rad|radians?|degrees?)[ _.]?(\^|\*\*)?2|square[ _]{LENGTH}|sr|steradians?|ha"
                        "|hectares?", re.IGNORECASE)
VOLUME_UNITS = re.compile(rf"{LENGTH}[ _.]?(\^|\*\*)?3|cubic[ _]{LENGTH}", re.IGNORECASE)
PER_LENGTH_UNITS = re.compile(rf"{LENGTH}[ _]?(\^|\*\*)?-1|1[ ]?/[ ]?{LENGTH}", re.IGNORECASE)

# names of positions, of a latitude and of a longitude, as models write them
LATITUDE = re.compile(r"x?(nav_?|geo|t|u|v|c|r|g)?lat(itude|itudes|s)?(_?(rho|u|v|psi|t|c|m|deg|2d))?|gphi[tuvf]",
                      re.IGNORECASE)
LONGITUDE = re.compile(r"x?(nav_?|geo|t|u|v|c|r|g)?lon(g|gitude|gitudes|s)?(_?(rho|u|v|psi|t|c|m|deg|2d))?|glam[tuvf]",
                       re.IGNORECASE)
PLANE = re.compile(r"[xy]([cgthuvq]|_?(rho|u|v|psi|c|t))?|(east|north)ings?|projection_[xy]_coordinate", re.IGNORECASE)
STAGGERED = re.compile(r".*_(u|v|psi)|[uvq](lat|lon).*|(gphi|glam)[uvf]|[xy]_?[guvq]", re.IGNORECASE)
POSITION_NAMES = {"latitude", "longitude", "grid_latitude", "grid_longitude", "projection_x_coordinate",
                  "projection_y_coordinate", "projection_x_angular_coordinate", "projection_y_angular_coordinate"}
POSITION_AXES = {"x", "y", "lat", "lon", "geox", "geoy"}
# names of lengths of a cell along one axis of the grid, and of one over them
LENGTH_NAME = re.compile(r"d[xy][a-z]{0,2}|[xy]?(d|delta_?|del)(lat|lon|x|y)|e[12][tuvfw]?|ht[ne]|hu[sw]"
                         "|cell_(width|length)", re.IGNORECASE)
PER_LENGTH_NAME = re.compile(r"p[mn]", re.IGNORECASE)
AREA_NAME = re.compile(r"(^|[^a-z])(areas?|area[a-z]{1,2}|areacell[a-z]?|[rtuv]area|ra[wsz]?|dxdy)($|[^a-z])",
                       re.IGNORECASE)
NO_AREA = re.compile(r"varian|deviation|std|square_of|square of|moment|turbulen|spectr|vorticity|stream|geopot|diffus",
                     re.IGNORECASE)
MASK_NAME = re.compile(r"mask|(^|_)(lsm|flag|flags|class|category|basins?|region|regions|qc|zone|type)($|_)",
                       re.IGNORECASE)
COUNT_NAME = re.compile(r"count|number|(^|_)(n|num|nobs|index|idx|id|ids)($|_)|nobs", re.IGNORECASE)
NO_UNITS = ("", "1", "-", "none", "bool", "boolean", "flag", "category", "unitless", "no_units")


@dataclass(frozen=True)
class Grid:
    """The grid of the field: names of its dimensions, its size in cells, and the scale of the finer one."""

    time: str
    rows: str
    columns: str
    height: int
    width: int
    scale: int

    def size(self, dimension: Any) -> int:
        return {self.rows: self.height, self.columns: self.width}[dimension]


@dataclass(frozen=True)
class Described:
    """A variable without its values.

    Attributes
    ----------
    name : str
    dims : tuple of str
    dtype : numpy.dtype
        In which it is stored.
    attrs : dict
    is_packed : bool
        Whether the stored integers stand for other numbers, by a factor and an offset.
    is_coordinate : bool
        Whether the file calls it a coordinate.
    """

    name: str
    dims: tuple
    dtype: np.dtype
    attrs: dict
    is_packed: bool = False
    is_coordinate: bool = False

    def text(self, key: str) -> str:
        return str(self.attrs.get(key, "")).strip()


@dataclass(frozen=True)
class Class:
    """What a variable on the grid is.

    Attributes
    ----------
    kind : {"position", "share", "unknown"}
    measure : Measure
        Of a position.
    power : int
        Of a share: the parts of a cell have its value divided by scale ** power; see `field_grid.share_cells`.
    """

    kind: Kind
    measure: Measure = PLAIN
    power: int = 0


UNKNOWN = Class("unknown")
MASK = Class("share")


def class_of(one: Described, grid: Grid, measures: Collection[str] = (), positions: Collection[str] = ()) -> Class:
    """Return the class of a variable that lies on the grid; bounds belong to their coordinate, and are not asked for.

    Parameters
    ----------
    one : Described
    grid : Grid
    measures : collection of str
        Names of areas and volumes of cells, by the attribute cell_measures of the field.
    positions : collection of str
        Names by the attribute coordinates of the field. If there are positions among them, other positions over rows
        and columns belong to another grid of the same size.
    """
    along = [name for name in one.dims if name in (grid.rows, grid.columns)]
    others = set(one.dims) - {grid.time, *along}
    # one axis of the grid beside another dimension: most likely a staggered grid, whose other axis is not refined
    if one.dtype.kind not in "fiub" or len(along) == 1 and others or len(set(one.dims)) < len(one.dims):
        return UNKNOWN
    if not others and _is_position(one, along, positions):
        return Class("position", measure_of(one))
    if _is_mask(one):
        return MASK
    return _amount_of(one, len(along), measures)


def measure_of(one: Described) -> Measure:
    """Return how a position is counted: as a latitude, a longitude or a length."""
    units, standard = one.text("units"), one.text("standard_name")
    axis = one.text("_CoordinateAxisType").lower()
    half = np.pi if units.lower() in RADIANS else 180.0
    is_angle = units.lower() in DEGREES
    if NORTH.fullmatch(units) or is_angle and (
            standard.endswith("latitude") or axis == "lat" or LATITUDE.fullmatch(one.name)):
        return Measure(limit=half / 2)
    if EAST.fullmatch(units) or is_angle and (
            standard.endswith("longitude") or axis == "lon" or LONGITUDE.fullmatch(one.name)):
        return Measure(period=2 * half)
    return PLAIN


def _is_position(one: Described, along: list, positions: Collection[str]) -> bool:
    if one.dtype.kind == "b":
        return False
    if one.dims == (one.name,):  # a coordinate in the sense of NetCDF
        return True
    units = one.text("units")
    by_name = any(names.fullmatch(one.name) for names in (LATITUDE, LONGITUDE, PLANE)) and (
        units.lower() in DEGREES or bool(LENGTH_UNITS.fullmatch(units)))
    axis = one.text("_CoordinateAxisType") or one.text("axis")
    found = (by_name or bool(NORTH.fullmatch(units) or EAST.fullmatch(units)) or axis.lower() in POSITION_AXES
             or one.text("standard_name") in POSITION_NAMES)
    if found and len(along) == 2 and one.name not in positions:
        return not positions and not STAGGERED.fullmatch(one.name)
    return found


def _is_mask(one: Described) -> bool:
    """Check for a mask or a class: flags, a name that says so, or whole numbers without a unit among the coordinates.

    Numbers of observations and the like are none.
    """
    if any(key in one.attrs for key in ("flag_values", "flag_masks", "flag_meanings")) or one.dtype.kind == "b":
        return True
    is_named = bool(MASK_NAME.search(one.name) or MASK_NAME.search(one.text("standard_name")))
    is_whole = one.dtype.kind in "iu" and not one.is_packed
    is_count = bool(COUNT_NAME.search(one.name) or COUNT_NAME.search(one.text("standard_name")))
    has_unit = one.text("units").lower() not in NO_UNITS
    return is_named and (is_whole or not has_unit) or is_whole and one.is_coordinate and not (has_unit or is_count)


def _amount_of(one: Described, axes: int, measures: Collection[str]) -> Class:
    """Return the class of an area, a volume, a length of one side of a cell, or one over it."""
    units, words = one.text("units"), f"{one.text('standard_name')} {one.text('long_name')}"
    is_named = bool(AREA_NAME.search(one.name)) or "area" in words.lower()
    is_area = (one.name in measures or one.text("standard_name") in ("cell_area", "cell_volume")
               or bool(AREA_UNITS.fullmatch(units) or VOLUME_UNITS.fullmatch(units))
               and (one.is_coordinate or is_named) and not NO_AREA.search(f"{one.name} {words}")
               or not units and bool(AREA_NAME.fullmatch(one.name)))
    if is_area and axes == 2:
        return Class("share", power=2)
    if LENGTH_NAME.fullmatch(one.name) and (LENGTH_UNITS.fullmatch(units) or units.lower() in DEGREES
                                            or NORTH.fullmatch(units) or EAST.fullmatch(units)):
        return Class("share", power=1)
    if PER_LENGTH_NAME.fullmatch(one.name) and PER_LENGTH_UNITS.fullmatch(units):
        return Class("share", power=-1)
    return UNKNOWN
