"""Rewrites the attributes that describe a grid for a finer one, and takes out those that are no longer true.

The names are those of CF, of the attribute conventions for discovery (ACDD), and of GDAL, GRIB in NetCDF, WRF, IOAPI
and others. An attribute that describes the grid, but is not understood, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from hpc_vsr.media.field_classes import Grid

Owner = Literal["file", "field", "position", "mapping"]



def _words(*patterns: str) -> re.Pattern:
    return re.compile("|".join(patterns))


# names in lower case, letters and digits alone
METRES = "met(er|re)s"
PLACES = "lat|lon|latitude|longitude"
SPACING = _words(rf"(grib)?d[xy](in({METRES}|degrees))?", "(d|delta)(lat|lon|long|x|y)",
                 rf"([xy]|{PLACES})step", "[xy](inc|res|cell|scale|sizem)",
                 ".*(resolution|spacing|cellsize|pixelsize|gridstep)",
                 rf".*resolution({PLACES}|x|y|horizontal|m|km|deg|degrees?|{METRES})",
                 rf".*({PLACES}|[ij]direction|x|y)increment(in(degrees|{METRES}))?")
POSITION_SPACING = _words("step", "delta", "increment")
NO_SPACING = _words("time", "temporal", "vertical", "depth", "level", "height", "altitude", "spectral", "radiometr",
                    "frequency", "wavelength", "bit", "colou?r", "intensity")
COUNT = _words("(grib)?n[xyij]", "n(um)?(lats?|lons?|cols?|rows?|columns|lines|points)", "[xy](size|dim)", "[ij]max",
               "(number|num)of(lines|columns|rows|pixels|points|gridpoints)", "gribnumberof(data)?points",
               "(westeast|southnorth)(griddimension|patchend(un)?stag)")
EAST = _words("(grib)?n[xi]", ".*(westeast|lon|col|imax|pixels|east|idirection|lo[12]).*", "x.*")
NORTH = _words("(grib)?n[yj]", ".*(southnorth|lat|row|lines|jmax|north|jdirection|la[12]).*", "y.*")
CORNER = _words("(grib)?(latitude|longitude)of(first|last)gridpoint(indegrees)?", "(la|lo)[12]", "[xy](first|last)",
                "(sw|se|nw|ne)point(latitude|longitude)")
EXTENT = _words("geospatial(lat|lon|x|y)(min|max)", f"({PLACES})(min|max)", f"(min|max)({PLACES})",
                "(north|south|east|west)(ern|ernmost|most|bound|bounding).*")
# descriptions that a finer grid does not have, or that a text would have to be rewritten for
UNTRUE = _words("nominalresolution", "gribn", "gribpl", "parentgridratio", "structmetadata.*",
                "grid(description|info|mapname|size)?", "gribgriddefinitiondescription", "gribgridtype",
                "externalvariables")
# statistics of the values, and limits of the valid ones: new values may pass them, and readers would mask those
STATISTICS = _words("valid(range|min|max)", "actual(range|min|max)", "(data)?range", "min(imum)?(value)?",
                    "max(imum)?(value)?", "mean(value)?", "std(dev)?", "statistics.*", "histogram.*")
# how the values are stored, which the writer decides
STORAGE = _words("scalefactor", "addoffset", "fillvalue", "missingvalue", "unsigned", "quantiz.*", "chunksizes",
                 "leastsignificantdigit", "numberofsignificantdigits")
NUMBER = re.compile(r"\d+\s*/\s*\d+|[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
DISTANCE_UNITS = _words(r"[\s,;x×*]", "by", r"\^?2", "°", "km", "m", "(kilo)?met(er|re)s?",
                        r"(arc[-_ ]?)?(degrees?|deg|minutes?|min|seconds?|sec)(_?(north|east|n|e))?")
DISTANCE = re.compile(f"({DISTANCE_UNITS.pattern})*", re.IGNORECASE)
CLOCK = re.compile(r"(?<!arc)(?<!arc[-_ ])(?<![a-z])(seconds?|minutes?|sec|min)", re.IGNORECASE)
EXACT = 1e-6


@dataclass
class Ends:
    """First and last centre of each axis before and after, "lat" and "lon" also where they are y and x."""

    before: dict[str, tuple[float, float]] = field(default_factory=dict)
    after: dict[str, tuple[float, float]] = field(default_factory=dict)


def plain(name: Any) -> str:
    """Return an attribute's name in lower case, letters and digits alone."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def rewrite(attrs: Mapping, owner: Owner, grid: Grid, ends: Ends) -> tuple[dict, list[str]]:
    """Return the attributes for the finer grid, and the names of those that are left out.

    Parameters
    ----------
    attrs : mapping
    owner : {"file", "field", "position", "mapping"}
        What they belong to. Attributes of other variables do not describe the grid.
    grid : Grid
    ends : Ends
    """
    kept, left_out = {}, []
    for name, value in attrs.items():
        word = plain(name)
        new = value
        if owner == "field" and STORAGE.fullmatch(word):
            continue
        if owner == "field" and STATISTICS.fullmatch(word):
            new = None
        elif word == "geotransform":
            new = _finer_transform(value, grid.scale)
        elif UNTRUE.fullmatch(word) and owner != "position":
            new = _true_text(word, value)
        elif (SPACING.fullmatch(word) and not NO_SPACING.search(word)
              or owner == "position" and POSITION_SPACING.fullmatch(word)):
            # a resolution of the field may be that of its values
            new = None if owner == "field" and word == "resolution" else _finer_spacing(value, grid)
        elif COUNT.fullmatch(word) and owner != "position":
            new = _finer_count(word, value, grid)
        elif CORNER.fullmatch(word):
            new = _moved(word, value, ends, or_as_it_is=False)
        elif EXTENT.fullmatch(word) and owner == "file":
            new = _moved(word, value, ends, or_as_it_is=True)
        if new is None:
            left_out.append(str(name))
        else:
            kept[name] = new
    return kept, left_out


def _numbers(value: Any) -> list[float] | None:
    """Return the numbers of an attribute that holds nothing else, as numbers or as text."""
    try:
        texts = value.replace(",", " ").split() if isinstance(value, str) else np.ravel(value).tolist()
        return [float(text) for text in texts]
    except (TypeError, ValueError, AttributeError):
        return None


def _finer_transform(value: Any, scale: int) -> Any | None:
    """Return the six numbers of an affine transformation; its origin is a corner of the grid, and stays."""
    numbers = _numbers(value)
    if numbers is None or len(numbers) != 6:
        return None
    finer = [number if place in (0, 3) else number / scale for place, number in enumerate(numbers)]
    return " ".join(_text(number) for number in finer) if isinstance(value, str) else np.array(finer)


def _text(number: float) -> str:
    """Return the shortest text that is exactly this number."""
    return repr(float(number)).removesuffix(".0")


def _finer_spacing(value: Any, grid: Grid) -> Any | None:
    """Return a distance of cells divided by the scale: a number, several, or a text such as "0.25 x 0.25 degree"."""
    if not isinstance(value, str):
        numbers = np.asarray(value)
        if numbers.dtype.kind not in "fiu":
            return None
        finer = numbers / grid.scale
        finer = finer.astype(numbers.dtype) if numbers.dtype.kind == "f" or (finer % 1 == 0).all() else finer
        return finer[()]
    rest = NUMBER.sub("", value)
    if not NUMBER.search(value) or not DISTANCE.fullmatch(rest) or CLOCK.search(rest):
        return None
    found = [one.group() for one in NUMBER.finditer(value)]
    if found in ([str(grid.height), str(grid.width)], [str(grid.width), str(grid.height)]):  # sizes, not distances
        return NUMBER.sub(lambda one: str(int(one.group()) * grid.scale), value)
    return NUMBER.sub(lambda one: _divided(one.group(), grid.scale), value)


def _divided(text: str, scale: int) -> str:
    if "/" in text:
        above, _, below = text.partition("/")
        return f"{above.strip()}/{int(below) * scale}"
    return _text(float(text) / scale)


def _finer_count(word: str, value: Any, grid: Grid) -> Any | None:
    """Return a number of cells, or of edges, of the finer grid; None if it is not that of the grid."""
    numbers = _numbers(value)
    if numbers is None or len(numbers) != 1:
        return None
    is_east, is_north = bool(EAST.fullmatch(word)), bool(NORTH.fullmatch(word))
    sizes = [grid.width] * (is_east or not is_north) + [grid.height] * (is_north or not is_east)
    choices = {grid.height * grid.width: grid.height * grid.width * grid.scale**2}
    choices |= {size + 1: size * grid.scale + 1 for size in sizes} | {size: size * grid.scale for size in sizes}
    new = choices.get(numbers[0])
    if new is None:
        return None
    return str(new) if isinstance(value, str) else np.asarray(new, np.asarray(value).dtype)[()]


def _moved(word: str, value: Any, ends: Ends, or_as_it_is: bool) -> Any | None:
    """Return the new place of the first or last centre, if the value is its place before."""
    numbers = _numbers(value)
    is_east = EAST.fullmatch(word) and not NORTH.fullmatch(word) or "lon" in word
    axis = "lon" if is_east else "lat"
    if numbers is not None and len(numbers) == 1 and axis in ends.before:
        for before, after in zip(ends.before[axis], ends.after[axis], strict=True):
            if abs(numbers[0] - before) <= EXACT * max(1.0, abs(before)):
                if isinstance(value, str):
                    return _text(after)
                dtype = np.asarray(value).dtype
                return np.asarray(after, dtype if dtype.kind == "f" else np.float64)[()]
    return value if or_as_it_is else None


def _true_text(word: str, value: Any) -> Any | None:
    """Return a description that does not depend on the resolution; None for the others."""
    text = str(value)
    if word == "gribgridtype":
        return None if "gg" in text else value
    if word == "gribgriddefinitiondescription":
        return None if "auss" in text else value
    if word == "grid":
        return None if re.search(r"\d", text) else value
    return None
