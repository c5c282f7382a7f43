"""Finds the time stamps of a field, and writes dates and lengths of time for a person."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpc_vsr.media.field_axes import kind_of_name

SECONDS = {"day": 86400.0, "d": 86400.0, "hour": 3600.0, "hr": 3600.0, "h": 3600.0, "minute": 60.0, "min": 60.0,
           "second": 1.0, "sec": 1.0, "s": 1.0, "millisecond": 1e-3, "msec": 1e-3, "ms": 1e-3, "microsecond": 1e-6}
DATE_AS_NUMBER = re.compile(r"day as %Y%m%d(\.%f)?")
NO_STAMP = 9  # rank of a variable that holds no time stamps


@dataclass(frozen=True)
class Clock:
    """Time stamps of the frames of one file.

    Attributes
    ----------
    name : str
    stored : np.ndarray
        (n,) numbers.
    units, calendar : str
    """

    name: str
    stored: np.ndarray
    units: str = ""
    calendar: str = "standard"

    @property
    def numbers(self) -> np.ndarray:
        """(n,) float64, whose differences are lengths of time."""
        return days(self.stored) if DATE_AS_NUMBER.fullmatch(self.units) else self.stored.astype(np.float64)

    @property
    def seconds(self) -> float | None:
        """Seconds of a difference of one; None if that is not known, as of months."""
        if DATE_AS_NUMBER.fullmatch(self.units):
            return SECONDS["day"]
        word = re.match(r"([a-z]+)\b", self.units.lower())
        return None if word is None else SECONDS.get(word[1], SECONDS.get(word[1].removesuffix("s")))

    def decode(self, index: int) -> Any:
        """Return the date of a stamp; None if the units are no length since a moment that can be counted."""
        import cftime

        try:
            if DATE_AS_NUMBER.fullmatch(self.units):
                return cftime.num2date(self.numbers[index], "days since 1970-01-01", "proleptic_gregorian")
            return cftime.num2date(self.stored[index], self.units, self.calendar)
        except (ValueError, OverflowError, TypeError, AttributeError):
            return None

    def text(self, index: int) -> str:
        """Return a date, or the number if it cannot be decoded."""
        date = self.decode(index)
        if date is None:
            return f"{self.stored[index]}"
        return date.isoformat(timespec="seconds" if date.second or date.microsecond else "minutes")

    @property
    def note(self) -> str:
        """What to add to a number that cannot be decoded."""
        if self.decode(0) is not None:
            return ""
        return f" in {self.units}" if self.units else f" by {self.name}, which has no unit"


def find_clocks(datasets: Sequence[Any], dim: str | None) -> list[Clock] | None:
    """Return the time stamps of each file, or None if some file has none.

    Parameters
    ----------
    datasets : sequence of xarray.Dataset
        With times as stored.
    dim : str or None
        Dimension of time; None if each file is one frame, whose stamp is a value beside it.
    """
    dims = () if dim is None else (dim,)
    for name in _rank_names(datasets[0], dims):
        found = [dataset.variables.get(name) for dataset in datasets]
        clocks = [_read_clock(name, one) for one in found if one is not None and one.dims == dims]
        if len(clocks) < len(datasets) or None in clocks:
            continue
        if dim is None and len(clocks) > 1 and len({(clock.units, clock.stored.tobytes()) for clock in clocks}) == 1:
            continue  # such as the start of a forecast, which is in each of its files
        return clocks
    return None


def _rank_names(dataset: Any, dims: tuple) -> list[str]:
    """Return the variables that may hold the time stamps, the best first."""
    def rank(name: str) -> int:
        attributes = dataset.variables[name].attrs
        standard_name = str(attributes.get("standard_name"))
        if name in dims:
            return 0
        if standard_name in ("forecast_reference_time", "forecast_period"):
            return NO_STAMP
        if standard_name == "time" or str(attributes.get("axis", "")).upper() == "T":
            return 1
        if " since " in str(attributes.get("units", "")):
            return 2 if kind_of_name(name) == "time" else 3
        return 4 if kind_of_name(name) == "time" else NO_STAMP

    names = [str(name) for name, array in dataset.variables.items() if array.dims == dims]
    return sorted((name for name in names if rank(name) < NO_STAMP), key=rank)


def _read_clock(name: str, array: Any) -> Clock | None:
    values = np.atleast_1d(array.values)
    if values.dtype.kind in "fiu":
        calendar = str(array.attrs.get("calendar", "standard")).lower()
        return Clock(name, values, str(array.attrs.get("units", "")).strip(),
                     "standard" if calendar == "gregorian" else calendar)
    texts = [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values]
    try:  # WRF writes 2005-08-28_00:00:00
        dates = [datetime.datetime.fromisoformat(text.strip().replace("_", "T").removesuffix("Z")) for text in texts]
        start = datetime.datetime(1970, 1, 1, tzinfo=dates[0].tzinfo)
        seconds = np.array([(date - start).total_seconds() for date in dates])
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return Clock(name, seconds, "seconds since 1970-01-01", "proleptic_gregorian")


def days(numbers: np.ndarray) -> np.ndarray:
    """Return the days since 1970 of dates that are written as numbers: 20000131.25 is January 31, 6 o'clock."""
    whole = np.floor(numbers).astype(np.int64)
    months = (whole // 10000 - 1970) * 12 + whole // 100 % 100 - 1
    return months.astype("datetime64[M]").astype("datetime64[D]").astype(float) + whole % 100 - 1 + numbers - whole


def format_length(step: float, seconds: float | None) -> str:
    """Return a length of time in the largest unit of which it is a whole number; a bare number without a unit."""
    if seconds is None:
        return f"{step:.6g}"
    for word, size in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0)):
        count = step * seconds / size
        if round(count) >= 1 and abs(count - round(count)) < 1e-4 * count:
            return f"{round(count)} {word}{'s' * (round(count) != 1)}"
    return f"{step * seconds:.6g} seconds"
