"""Looks at the time of a field's frames: order, repeats and gaps.

A time axis that cannot be decoded, such as "months since 1960-01-01", is looked at by its numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hpc_vsr.media.field_clock import Clock, days, format_length
from hpc_vsr.system.errors import InputError

GAP = 1.5  # a step longer than this many usual ones is a gap
NEARBY = 11  # steps around one, whose median is the usual one: a cadence may change, or grow slowly
SHORTEST = 5  # frames of a window; if the pieces between many gaps are shorter, the times are irregular
MANY = 3  # gaps
FILL = 9.9e36  # NetCDF's value for what was never written
MOST_SHOWN = 3
SAME_DATES = {"standard", "proleptic_gregorian"}  # since 1582


@dataclass(frozen=True)
class Times:
    """What is known of the time of the frames.

    Attributes
    ----------
    line : str
        For a person: "time: 24 steps of 1 hour from 2000-01-01T00:00".
    breaks : tuple of int
        Frames after a gap.
    warnings : tuple of str
    """

    line: str
    breaks: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


def look_at_times(paths: Sequence[Path], clocks: Sequence[Clock]) -> Times:
    """Check the order of the time stamps and find gaps.

    Raises
    ------
    InputError
        If a time is missing, is repeated or lies before the one of the frame before, or files count differently.
    """
    if not all(len(clock.stored) for clock in clocks):
        return Times("time: some files have no step")
    for path, clock in zip(paths, clocks, strict=True):
        missing = ~(np.abs(clock.stored.astype(np.float64)) < FILL)
        if missing.any():
            raise InputError(f"{path}: {clock.name} has no value at frame {int(missing.argmax())}; write the time of "
                             "each frame, or cut the file to the frames that have one")
    clocks = _on_one_clock(paths, clocks)
    joined = replace(clocks[0], stored=np.concatenate([clock.stored for clock in clocks]))
    start = f"{joined.text(0)}{joined.note}"
    steps = np.diff(joined.numbers)
    if not len(steps):
        return Times(f"time: 1 step at {start}")
    is_backwards = len(paths) == 1 and bool((steps < 0).all())
    if not is_backwards:
        _check_order(paths, clocks)
    return _describe(joined, np.abs(steps), start, is_backwards)


def _describe(clock: Clock, steps: np.ndarray, start: str, is_backwards: bool) -> Times:
    def span(some: np.ndarray) -> str:
        short, long = (format_length(step, clock.seconds) for step in (some.min(), some.max()))
        return short if some.max() <= some.min() * 1.01 else f"{short} to {long}"

    gaps = find_gaps(steps)
    warnings = ["time goes backwards through the frames"] * is_backwards
    if _is_irregular(gaps, steps):
        warnings.append(f"the steps of time are irregular, {span(steps)}; frames are taken as they follow each other")
        gaps = gaps[:0]
    lasting = np.delete(steps, gaps)
    line = f"time: {len(clock.stored)} steps of {span(lasting)} from {start}{', backwards' * is_backwards}"
    if not len(gaps):
        if lasting.max() > GAP * lasting.min() and not warnings:
            warnings.append(f"the steps of time differ, {span(steps)}; a network takes frames as evenly spaced")
        return Times(line, (), tuple(warnings))
    told = [f"{format_length(steps[gap], clock.seconds)} before frame {gap + 1} ({clock.text(gap)} to "
            f"{clock.text(gap + 1)})" for gap in gaps[:MOST_SHOWN]]
    more = f" and {len(gaps) - MOST_SHOWN} more" if len(gaps) > MOST_SHOWN else ""
    warnings.append(f"time has {_count(gaps)}: {', '.join(told)}{more}; no window crosses a gap")
    return Times(f"{line}, {_count(gaps)}", tuple(int(gap) + 1 for gap in gaps), tuple(warnings))


def look_at_names(paths: Sequence[Path], lengths: Sequence[int]) -> Times:
    """Find gaps by the numbers in the names of the files, if nothing in the files tells the time.

    `lengths` are the frames of each file.
    """
    line = f"time: {sum(lengths)} step{'s' * (sum(lengths) != 1)}, without time stamps"
    numbers = numbers_in_names([path.name for path in paths]) if len(paths) > 2 else None
    gaps = find_gaps(np.diff(numbers)) if numbers is not None and (np.diff(numbers) > 0).all() else np.array([], int)
    if not len(gaps) or _is_irregular(gaps, numbers):
        return Times(line)
    starts = np.cumsum([0, *lengths])
    told = ", ".join(f"{paths[gap].name} and {paths[gap + 1].name}" for gap in gaps[:MOST_SHOWN])
    more = f" and {len(gaps) - MOST_SHOWN} more" if len(gaps) > MOST_SHOWN else ""
    return Times(f"{line}, {_count(gaps)} in the names of the files", tuple(int(starts[gap + 1]) for gap in gaps),
                 (f"a file is missing between {told}{more}, by the numbers in their names; no window crosses a gap",))


def _is_irregular(gaps: np.ndarray, steps: np.ndarray) -> bool:
    return len(gaps) >= MANY and len(gaps) * SHORTEST > len(steps)


def _count(gaps: np.ndarray) -> str:
    return f"{len(gaps)} gap{'s' * (len(gaps) != 1)}"


def _on_one_clock(paths: Sequence[Path], clocks: Sequence[Clock]) -> list[Clock]:
    """Return the clocks with the units of the first one, so that their numbers compare."""
    import cftime

    first, made = clocks[0], []
    for path, clock in zip(paths, clocks, strict=True):
        if (clock.units, clock.calendar) == (first.units, first.calendar):
            made.append(clock)
            continue
        dates = [clock.decode(index) for index in range(len(clock.stored))]
        is_same = clock.calendar == first.calendar or {clock.calendar, first.calendar} == SAME_DATES
        if not is_same or first.decode(0) is None or None in dates or "since" not in first.units:
            raise InputError(f"{path}: {clock.name} is {_how(clock)}, but in the file before it {_how(first)}; all "
                             "files must use the same type of time")
        dates = [cftime.datetime(*date.timetuple()[:6], date.microsecond, calendar=first.calendar) for date in dates]
        made.append(replace(first, stored=np.asarray(cftime.date2num(dates, first.units, first.calendar))))
    return made


def _how(clock: Clock) -> str:
    return f"{clock.units} in the {clock.calendar} calendar" if clock.units else "a number without a unit"


def _check_order(paths: Sequence[Path], clocks: Sequence[Clock]) -> None:
    """Raise `InputError` where a time is not later than the one before it, in a file or between two."""
    for path, clock in zip(paths, clocks, strict=True):
        wrong = np.flatnonzero(np.diff(clock.numbers) <= 0)
        if len(wrong):
            place = int(wrong[0])
            before, after = clock.text(place), clock.text(place + 1)
            what = (f"{clock.name} is {after} in frames {place} and {place + 1}" if before == after else
                    f"{clock.name} goes back from {before} to {after} at frame {place + 1}")
            more = f" (and so at {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise InputError(f"{path}: {what}{more}; write the frames in order of time, each once")
    for path, clock, before in zip(paths[1:], clocks[1:], clocks, strict=False):
        if not clock.numbers[0] > before.numbers[-1]:
            raise InputError(f"{path}: starts at {clock.name} {clock.text(0)}, before the previous file ends "
                             f"({before.text(-1)}); name the files in order of time, without overlap")


def find_gaps(steps: np.ndarray) -> np.ndarray:
    """Return the positions of steps that are longer than `GAP` times the usual one near them."""
    from scipy.ndimage import median_filter  # slow to import

    return np.flatnonzero(steps > GAP * median_filter(steps, NEARBY, mode="mirror"))


def numbers_in_names(names: Sequence[str]) -> np.ndarray | None:
    """Return the number that counts in each name, dates as days; None if not exactly one number differs."""
    parts = [re.split(r"(\d+)", name) for name in names]
    if len({tuple(part[::2]) for part in parts}) != 1:
        return None
    counting = [column for column in zip(*(part[1::2] for part in parts), strict=True) if len(set(column)) > 1]
    if len(counting) != 1:
        return None
    numbers = np.array([float(digits) for digits in counting[0]])
    if all(re.fullmatch(r"(18|19|20|21)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", digits) for digits in counting[0]):
        return days(numbers)
    if all(re.fullmatch(r"(18|19|20|21)\d\d(0[1-9]|1[0-2])", digits) for digits in counting[0]):
        return numbers // 100 * 12 + numbers % 100
    has_hours = all(re.fullmatch(r"(18|19|20|21)\d{8,12}", digits) for digits in counting[0])  # not counted
    return None if has_hours else numbers
