"""Makes positions, their bounds and their corners finer: along one axis, over rows and columns, or in time."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpc_vsr.media.field_classes import Grid
from hpc_vsr.media.field_grid import (
    PLAIN,
    Measure,
    find_corners,
    has_pole,
    split_axis,
    split_cells,
    split_corners,
    split_corners_globe,
    split_globe,
    split_plane,
)

STEM = re.compile(r"latitude|longitude|long|lat|lon|gphi|glam|north|east|[xy]", re.IGNORECASE)


@dataclass
class Position:
    """A position before it is made finer.

    Attributes
    ----------
    name : str
    dims : tuple of str
        Rows, columns, or both in this order.
    measure : Measure
    values : array
        float64; of the first step if `at` is given.
    is_axis : bool
        Whether it is the coordinate of its dimension.
    bounds : array, optional
        (n, 2), or (rows, columns, 4).
    at : callable, optional
        Returns the values of a step, if they change in time.
    """

    name: str
    dims: tuple
    measure: Measure
    values: np.ndarray
    is_axis: bool = False
    bounds: np.ndarray | None = None
    at: Callable[[int], np.ndarray] | None = None


@dataclass
class Finer:
    """A finer position: its values, its bounds if there are some that fit, and a function of the step if it moves."""

    values: np.ndarray
    bounds: np.ndarray | None = None
    at: Callable[[int], np.ndarray] | None = None


def make_finer(positions: list[Position], grid: Grid) -> dict[str, Finer]:
    """Return the finer positions by name, without axes that neither ascend nor descend."""
    found = {}
    for one in positions:
        if len(one.dims) == 1 and (finer := _along_axis(one, grid.scale)):
            found[one.name] = finer
    for group in _groups([one for one in positions if len(one.dims) == 2]):
        found |= _over_plane(group, grid.scale)
    return found


def _along_axis(one: Position, scale: int) -> Finer | None:
    steps = np.diff(one.measure.unwrap(one.values, 0))
    if np.isfinite(one.values).all() and ((steps > 0).all() or (steps < 0).all()):
        values, bounds = split_axis(one.values, one.bounds, scale, one.measure)
    elif one.is_axis:
        return None
    else:  # such as the latitudes of an orbit
        values, bounds = one.measure.like(split_cells(one.values, scale, one.measure), one.values), None
    at = one.at
    return Finer(values, bounds, at and (lambda step: split_cells(at(step), scale, one.measure)))


def _groups(positions: list[Position]) -> list[list[Position]]:
    """Put latitudes and longitudes, or x and y, together whose names differ in these words alone."""
    groups: dict[tuple[str, bool], list[Position]] = {}
    for one in positions:
        groups.setdefault((STEM.sub("", one.name), one.measure == PLAIN), []).append(one)
    return [group for found in groups.values() for group in ([found] if len(found) == 2 else [[one] for one in found])]


def _over_plane(group: list[Position], scale: int) -> dict[str, Finer]:
    """Make the positions of a group finer; on the globe, if a pole lies between the cells."""
    measures = [one.measure for one in group]
    before = [one.values for one in group]
    values = _split(before, measures, scale)
    found = {one.name: Finer(new) for one, new in zip(group, values, strict=True)}
    if all(one.bounds is not None and np.isfinite(one.bounds).all() for one in group):
        corners = _split_corners(group, values, scale)
        for one, bounds in zip(group, corners or [], strict=bool(corners)):
            found[one.name].bounds = bounds
    if any(one.at for one in group):
        def at(place: int) -> Callable[[int], np.ndarray]:
            return lambda step: _split([one.at(step) if one.at else one.values for one in group], measures,
                                       scale)[place]

        for place, one in enumerate(group):
            found[one.name].at = at(place)
    return found


def _globe(measures: list[Measure]) -> tuple[int, int] | None:
    """Return which of two positions is the latitude and which the longitude."""
    north = [place for place, one in enumerate(measures) if one.limit]
    east = [place for place, one in enumerate(measures) if one.period]
    return (north[0], east[0]) if len(north) == len(east) == 1 else None


def _split(values: list[np.ndarray], measures: list[Measure], scale: int) -> list[np.ndarray]:
    places = _globe(measures)
    if places and has_pole(values[places[1]], measures[places[1]]):
        new = split_globe(*(values[place] for place in places), scale, measures[places[1]].period)
        return [new[places.index(place)] for place in range(2)]
    return [split_plane(one, scale, measure) for one, measure in zip(values, measures, strict=True)]


def _split_corners(group: list[Position], values: list[np.ndarray], scale: int) -> list[np.ndarray] | None:
    """Return the corners of the parts of the cells, in the order of the corners of the cells, near their centres."""
    measures = [one.measure for one in group]
    order = find_corners([one.bounds for one in group], measures)
    if order is None:
        return None
    places = _globe(measures)
    if places and has_pole(group[places[1]].values, measures[places[1]]):
        new = split_corners_globe(*(group[place].bounds for place in places), order, scale, measures[places[1]].period)
        corners = [new[places.index(place)] for place in range(2)]
    else:
        corners = [split_corners(one.measure.near(one.bounds, one.values[..., None]), order, scale) for one in group]
    return [measure.near(measure.clip(one), new[..., None])
            for one, measure, new in zip(corners, measures, values, strict=True)]
