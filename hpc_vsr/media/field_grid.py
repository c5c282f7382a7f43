"""The geometry of a finer grid: centres, bounds, corners and amounts of cells that are split into equal parts.

A cell becomes `parts` x `parts` cells between the same outer edges. Only arrays come in and go out.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

SHARED = 1e-2  # of the extent of a cell: corners of neighbours that are nearer are one corner


@dataclass(frozen=True)
class Measure:
    """How a position is counted.

    Attributes
    ----------
    period : float, optional
        Of a longitude: 360 degrees, or 2 pi.
    limit : float, optional
        Of a latitude: 90 degrees, or pi / 2; no edge of a cell lies beyond the pole.
    """

    period: float | None = None
    limit: float | None = None

    def near(self, values: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the values in the turn of the circle in which the others are."""
        return values if self.period is None else values - self.period * np.round((values - others) / self.period)

    def unwrap(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Return longitudes that go on where they pass the end of the circle."""
        return values if self.period is None else np.unwrap(values, period=self.period, axis=axis)

    def clip(self, edges: np.ndarray) -> np.ndarray:
        return edges if self.limit is None else np.clip(edges, -self.limit, self.limit)

    def like(self, values: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Return longitudes from -180 or from 0 on, as they were before, if those passed the end of the circle."""
        if self.period is None or not any((np.abs(np.diff(before, axis=axis)) > self.period / 2).any()
                                          for axis in range(before.ndim)):
            return values
        lowest = -self.period / 2 if np.nanmin(before) < 0 else 0.0
        turned = np.mod(values - lowest, self.period)
        return lowest + np.where(turned == self.period, 0.0, turned)  # of a value just below, by rounding


PLAIN = Measure()


def split_cells(centres: np.ndarray, parts: int, measure: Measure = PLAIN) -> np.ndarray:
    """Split cells, given by their centres along the first axis, into `parts` each, and return the new centres.

    The outer edges stay. An edge lies half way between two centres; the outermost edges lie as far beyond the last
    centre as the neighbouring edge lies before it, but not beyond a pole. So does an edge beside a missing centre.
    """
    if len(centres) == 1:
        return np.repeat(centres, parts, 0)
    unknown = np.full_like(centres[:1], np.nan)
    begin = np.concatenate([unknown, (centres[1:] + measure.near(centres[:-1], centres[1:])) / 2])
    end = np.concatenate([(measure.near(centres[1:], centres[:-1]) + centres[:-1]) / 2, unknown])
    begin, end = np.where(np.isnan(begin), 2 * centres - end, begin), np.where(np.isnan(end), 2 * centres - begin, end)
    return _middles(measure.clip(begin), measure.clip(end), parts)


def _middles(begin: np.ndarray, end: np.ndarray, parts: int) -> np.ndarray:
    between = [begin + (end - begin) * (part + 0.5) / parts for part in range(parts)]
    return np.stack(between, 1).reshape(-1, *begin.shape[1:])


def split_bounds(bounds: np.ndarray, parts: int) -> np.ndarray:
    """Split (n, 2) bounds of cells, each from begin to end, into the bounds of `parts` parts of each."""
    begin, width = bounds[:, :1], np.diff(bounds, axis=1)
    edges = [np.concatenate([begin + width * part / parts, begin + width * (part + 1) / parts], 1)
             for part in range(parts)]
    return np.stack(edges, 1).reshape(-1, 2)


def split_axis(centres: np.ndarray, bounds: np.ndarray | None, parts: int, measure: Measure = PLAIN
               ) -> tuple[np.ndarray, np.ndarray | None]:
    """Split the cells of one axis, and return their centres (n parts,) and bounds (n parts, 2).

    Bounds say where the edges of the cells are. They may name the lower edge first although the axis descends, and
    may pass the end of the circle. If they do not fit the centres, they count for nothing, and None is returned.
    """
    if bounds is not None:
        around = measure.clip(measure.near(bounds, centres[:, None]))
        unwrapped = measure.unwrap(centres, 0)
        ascends = len(centres) < 2 or unwrapped[-1] > unwrapped[0]
        low, high = around.min(1), around.max(1)
        follows = (around[:, 1] > around[:, 0]) == ascends
        slack = 1e-6 * np.abs(high - low)
        fits = ((low < high) & (low - slack <= centres) & (centres <= high + slack)).all()
        if fits and (follows.all() or not follows.any()):
            forward = around if follows.all() else around[:, ::-1]
            edges = split_bounds(forward + (unwrapped - centres)[:, None], parts)
            return edges.mean(1), edges if follows.all() else edges[:, ::-1]
    return split_cells(measure.unwrap(centres, 0), parts, measure), None


def split_plane(values: np.ndarray, parts: int, measure: Measure = PLAIN) -> np.ndarray:
    """Split the cells of (..., rows, columns) positions along the last two axes."""
    before = values
    for axis in (-2, -1):
        values = np.moveaxis(split_cells(np.moveaxis(values, axis, 0), parts, measure), 0, axis)
    return measure.like(values, before)


def has_pole(longitudes: np.ndarray, measure: Measure) -> bool:
    """Check whether (rows, columns) longitudes turn once around somewhere: there a pole lies between the centres."""
    def step(first, second):
        return measure.near(second - first, np.zeros(()))

    a, b, c, d = longitudes[:-1, :-1], longitudes[:-1, 1:], longitudes[1:, 1:], longitudes[1:, :-1]
    around = step(a, b) + step(b, c) + step(c, d) + step(d, a)
    return bool((np.abs(around) > measure.period / 2).any())


def split_globe(latitudes: np.ndarray, longitudes: np.ndarray, parts: int, turn: float
                ) -> tuple[np.ndarray, np.ndarray]:
    """Split the cells of (rows, columns) positions on a globe, along straight lines through it.

    It is right also around a pole, where a mean of longitudes means nothing. `turn` is 360 for degrees, or 2 pi.
    """
    points = [split_plane(part, parts) for part in _points(latitudes, longitudes, turn)]
    return _from_points(points, longitudes, turn)


def _points(latitudes: np.ndarray, longitudes: np.ndarray, turn: float) -> list[np.ndarray]:
    north, east = latitudes * (2 * np.pi / turn), longitudes * (2 * np.pi / turn)
    return [np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)]


def _from_points(points: list[np.ndarray], before: np.ndarray, turn: float) -> tuple[np.ndarray, np.ndarray]:
    x, y, z = points
    east = np.arctan2(y, x) * (turn / (2 * np.pi))
    return np.arctan2(z, np.hypot(x, y)) * (turn / (2 * np.pi)), Measure(turn).like(east, before)


def find_corners(corners: list[np.ndarray], measures: list[Measure]) -> list[list[int]] | None:
    """Return which of four corners is where: `found[a][b]` is towards the previous (0) or next (1) row a and column b.

    Neighbours share corners, which tells it for every order in use. None if they do not, or not all of them alike.

    Parameters
    ----------
    corners : list of array
        Of each coordinate of the corners, such as latitudes and longitudes, (rows, columns, 4).
    measures : list of Measure
    """
    towards_column = _shared_corners(corners, measures, 1)
    towards_row = _shared_corners(corners, measures, 0)
    if towards_column is None or towards_row is None:
        return None
    found = [[set(towards_row[a]) & set(towards_column[b]) for b in (0, 1)] for a in (0, 1)]
    if any(len(one) != 1 for line in found for one in line):
        return None
    return [[one.pop() for one in line] for line in found]


def _shared_corners(corners: list[np.ndarray], measures: list[Measure], axis: int) -> tuple | None:
    """Return the two corners at the side of the previous cell and the two at the side of the next one."""
    pairs = []
    for mine, other in itertools.product(range(4), range(4)):
        is_shared = True
        for values, measure in zip(corners, measures, strict=True):
            relative = measure.near(values, values[..., :1])
            extent = np.median(relative.max(-1) - relative.min(-1))
            count = values.shape[axis]
            here = values[..., mine].take(range(count - 1), axis)
            there = values[..., other].take(range(1, count), axis)
            is_shared &= count > 1 and bool((np.abs(measure.near(there, here) - here) <= SHARED * extent).all())
        if is_shared:
            pairs.append((mine, other))
    after, before = {mine for mine, _ in pairs}, {other for _, other in pairs}
    return (before, after) if len(pairs) == 2 and len(after | before) == 4 else None


def split_corners(corners: np.ndarray, places: list[list[int]], parts: int) -> np.ndarray:
    """Split (rows, columns, 4) corners of cells; the corners of each part are in the same order.

    `places` is what `find_corners` returns. Points along an edge are equally far apart, as on a straight line.
    """
    rows, columns = corners.shape[:2]
    fine = np.empty((rows, parts, columns, parts, 4), corners.dtype)
    (a, b), (c, d) = [[corners[..., place] for place in line] for line in places]
    for down, right in itertools.product(range(parts), range(parts)):
        for row, column in itertools.product((0, 1), (0, 1)):
            v, u = (down + row) / parts, (right + column) / parts
            fine[:, down, :, right, places[row][column]] = (1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * c + u * d)
    return fine.reshape(rows * parts, columns * parts, 4)


def split_corners_globe(latitudes: np.ndarray, longitudes: np.ndarray, places: list[list[int]], parts: int,
                        turn: float) -> tuple[np.ndarray, np.ndarray]:
    """Split (rows, columns, 4) corners on a globe; see `split_globe`."""
    points = [split_corners(part, places, parts) for part in _points(latitudes, longitudes, turn)]
    return _from_points(points, longitudes, turn)


def share_cells(values: np.ndarray, axes: tuple[int, ...], parts: int, power: int = 0) -> np.ndarray:
    """Repeat the values of cells for their parts along some axes, each divided by parts ** power.

    A mask has the power 0, a length along one axis of the grid 1, an area 2, and one over a length -1.
    """
    for axis in axes:
        values = np.repeat(values, parts, axis)
    return values / float(parts) ** power if power else values
