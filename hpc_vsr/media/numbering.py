"""Finds where names skip a number, so that frames before and after are not neighbours."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from hpc_vsr.media.order import Name

GAP = Decimal("1.5")  # steps; from this distance on something is missing
SAME = Decimal("0.1")  # of a step, by which equal steps differ: names are rounded
LEAST_REGULAR = 0.6  # share of the steps that must be equal
LEAST_SERIES = 5  # names of which each series has so many are several recordings
LEAST_STEPS = 3
TIMES = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
CLOCK = {4: "%H%M", 6: "%H%M%S"}


@dataclass(frozen=True)
class Numbering:
    """What the numbers in names, in their order, say of what is missing.

    Attributes
    ----------
    gaps : list of int
        Places before which a number is missing.
    starts : list of int
        Places at which another series of names begins.
    is_regular : bool
        False if the distances are so different that nothing can be said.
    """

    gaps: list[int]
    starts: list[int]
    is_regular: bool = True


def find_gaps(names: Sequence[Name]) -> Numbering:
    """Find the gaps in names that are in order.

    A name may hold several numbers: the first one that differs between all names counts them, or all together are a
    date and time, or those in front tell series apart and the last one counts.
    """
    series = _split(names, lambda name: name.texts)
    if len(series) > 1 and any(len(part) < LEAST_SERIES for part in series):
        return Numbering([], [], False)
    gaps, starts, regular = [], [part.start for part in series[1:]], True
    for part in series:
        found = _of_series(names[part.start : part.stop])
        gaps += [part.start + gap for gap in found.gaps]
        starts += [part.start + start for start in found.starts]
        regular &= found.is_regular
    return Numbering(gaps, sorted(starts), regular)


def _of_series(names: Sequence[Name]) -> Numbering:
    """Find the gaps in names with the same texts."""
    columns = list(zip(*(name.numbers for name in names), strict=True))
    varying = [column for column in columns if len(set(column)) > 1]
    if not varying:
        return Numbering([], [])
    counter = next((column for column in varying if all(b > a for a, b in itertools.pairwise(column))), None)
    times = _as_times(list(zip(*(name.written for name in names), strict=True)))
    readings = [values for values in (times, counter) if values is not None]
    if readings:
        found = [_in_values(values) for values in readings]
        return min(found, key=lambda item: (not item.is_regular, len(item.gaps)))
    # the number in front tells series apart
    parts = _split(list(varying[0]), lambda number: number)
    if len(varying) == 1 or any(len(part) < LEAST_SERIES for part in parts):
        return Numbering([], [], False)
    first = next(index for index, column in enumerate(columns) if len(set(column)) > 1)
    found = [_of_series([Name(name.texts, name.written[first + 1 :]) for name in names[part.start : part.stop]])
             for part in parts]
    return Numbering([part.start + gap for part, item in zip(parts, found, strict=True) for gap in item.gaps],
                     sorted([part.start for part in parts[1:]]
                            + [part.start + start for part, item in zip(parts, found, strict=True)
                               for start in item.starts]),
                     all(item.is_regular for item in found))


def _in_values(values: Sequence[Decimal]) -> Numbering:
    steps = [b - a for a, b in itertools.pairwise(values)]
    if len(steps) < LEAST_STEPS:
        return Numbering([], [])
    usual = statistics.median(steps)
    if usual <= 0 or sum(abs(step - usual) <= SAME * usual for step in steps) < LEAST_REGULAR * len(steps):
        return Numbering([], [], False)
    return Numbering([index + 1 for index, step in enumerate(steps) if step >= GAP * usual], [])


def _as_times(columns: Sequence[Sequence[str]]) -> list[Decimal] | None:
    """Return seconds, if the numbers of a name are a date with or without a time, or a time of day."""
    varying = [index for index, column in enumerate(columns) if len(set(column)) > 1]
    for start in range(varying[0] + 1):  # numbers in front of the first that differs may belong to the date
        chosen = columns[start : varying[-1] + 1]
        widths = [{len(text) for text in column} for column in chosen]
        if any(len(found) != 1 or max(found) % 2 for found in widths):
            continue
        length = sum(map(max, widths))
        with contextlib.suppress(ValueError, TypeError):
            times = [datetime.datetime.strptime("".join(texts), TIMES.get(length) or CLOCK.get(length))
                     for texts in zip(*chosen, strict=True)]
            return [Decimal(int((time - times[0]).total_seconds())) for time in times]
    return None


def _split(items: Sequence, key) -> list[range]:
    """Return the runs of neighbours with the same key."""
    starts = [index for index in range(len(items)) if index == 0 or key(items[index]) != key(items[index - 1])]
    return [range(*limits) for limits in itertools.pairwise([*starts, len(items)])]
