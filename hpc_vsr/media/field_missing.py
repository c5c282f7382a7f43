"""Decides which stored values of a field stand for a missing one, from the attributes of its variable.

The attributes are those of CF 1.11, section 2.5.1: `_FillValue`, `missing_value`, `valid_min`, `valid_max` and
`valid_range`. They are compared in the type of the data, as the NetCDF User's Guide says (appendix A), because a fill
value of 1e20 in double is another number than the 1e20 in float that the data hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

FILLS = ("_FillValue", "missing_value")
RANGES = ("valid_range", "valid_min", "valid_max")
FLOAT32_STEP = 2.0**-23
# What the NetCDF library fills in where nothing was written (NC_FILL_SHORT etc. of netcdf.h). Of bytes all values are
# data; the one of floats, 9.97e36, is refused as too large.
NETCDF_FILLS = {"i2": -(2**15 - 1), "u2": 2**16 - 1, "i4": -(2**31 - 1), "u4": 2**32 - 1, "i8": -(2**63 - 2),
                "u8": 2**64 - 2}


@dataclass(frozen=True)
class Fill:
    """A value that stands for a missing one.

    Attributes
    ----------
    name : str
        Such as "missing_value -9999".
    value : float or int
        In stored units, or in those of the decoded values if `is_decoded`.
    is_decoded : bool
        Whether it is compared with decoded values, because no stored one can equal it.
    tolerance : float
        By which a value may differ: one step of float32 if only the attribute has that precision, else 0.
    is_plain : bool
        Whether comparing the numbers as they are gives the same.
    """

    name: str
    value: Any
    is_decoded: bool
    tolerance: float
    is_plain: bool


@dataclass(frozen=True)
class Limit:
    """A bound of the valid values, in stored units or in those of the decoded values; `slack` is for rounding."""

    name: str
    value: Any
    is_upper: bool
    is_decoded: bool
    slack: float


class Missing:
    """What stands for a missing value in one variable of one file.

    Parameters
    ----------
    attributes : dict
        Attributes of the variable as stored. Numbers may be given as text.
    stored : dtype
        Type of the stored values, after `_Unsigned`.
    step : float
        Scale factor of packed values; 0 if they are not packed.
    zero_is_data : bool
        Whether a `_FillValue` of 0 is only the one with which Zarr fills what was never written.
    default : int, optional
        What the library fills in where nothing was written, in the type in the file. It is missing if no attribute
        says which value is, nor how far the valid ones reach on its side.

    Attributes
    ----------
    declared : list of Fill
    limits : list of Limit
    unread : list of str
        Attributes that were not understood, as text.
    """

    def __init__(self, attributes: dict, stored: np.dtype, step: float = 0.0, zero_is_data: bool = False,
                 default: Any = None):
        self.unread: list[str] = []
        self.declared: list[Fill] = []
        self.limits: list[Limit] = []
        is_unsigned = str(attributes.get("_Unsigned", "")).lower() == "true"
        given = {name: self._numbers(name, attributes[name]) for name in (*FILLS, *RANGES) if name in attributes}
        for name in FILLS:
            is_text = np.asarray(attributes.get(name, 0)).dtype.kind in "SUO"
            for number in given.get(name, ()):
                if not (zero_is_data and name == "_FillValue" and number == 0):
                    number = _as_unsigned(number, stored) if is_unsigned else number
                    self.declared += _fills(name, number, is_text, stored, bool(step))
        for name, number, is_upper in self._bounds(given):
            number = _as_unsigned(number, stored) if is_unsigned else number
            # a float beside packed integers is in the units of the decoded values
            is_decoded = bool(step) and stored.kind in "iu" and np.asarray(number).dtype.kind == "f"
            self.limits.append(Limit(f"{name} {float(number):g}", number, is_upper, is_decoded,
                                     abs(step) / 2 if is_decoded else 0.0))
        if default is not None and "_FillValue" not in attributes and not self.has_limit(default > 0):
            number = _as_unsigned(np.asarray(default)[()], stored) if is_unsigned else default
            self.declared += [replace(fill, is_plain=False)  # earlier versions took it for data
                              for fill in _fills("default fill value", number, False, stored, bool(step))
                              if all(fill.value != other.value for other in self.declared)]

    def find(self, stored: np.ndarray, values: np.ndarray) -> Iterator[tuple[str, np.ndarray, bool]]:
        """Yield the name of each rule that finds missing values, their mask, and whether the rule is a plain one.

        `stored` and `values` are the same cells, before and after decoding.
        """
        rules = []
        for fill in self.declared:
            mask = _equals(values if fill.is_decoded else stored, fill.value, fill.tolerance)
            is_plain = fill.is_plain and (not fill.tolerance or np.array_equal(mask, stored == fill.value))
            rules.append((fill.name, mask, is_plain))
        rules += [(limit.name, _beyond(values if limit.is_decoded else stored, limit), False) for limit in self.limits]
        if values.dtype.kind == "f":
            rules.append(("NaN", np.isnan(values), True))
        for name, mask, is_plain in rules:
            if mask.any():
                yield name, mask, is_plain

    def has_limit(self, is_upper: bool) -> bool:
        """Return whether the attributes say how large, or how small, a valid value may be."""
        return any(limit.is_upper == is_upper for limit in self.limits)

    def _bounds(self, given: dict[str, list]) -> Iterator[tuple[str, Any, bool]]:
        both = given.get("valid_range", [])
        if "valid_range" in given and len(both) == 2:
            yield from (("valid_range", both[0], False), ("valid_range", both[1], True))
            return
        if both:
            self.unread.append(f"valid_range has {len(both)} numbers and not 2")
        for name, is_upper in (("valid_min", False), ("valid_max", True)):
            if len(given.get(name, ())) == 1:
                yield name, given[name][0], is_upper

    def _numbers(self, name: str, value: Any) -> list:
        """Return the numbers of an attribute, which may be a list of them or text, without NaN."""
        found = []
        for item in np.ravel(np.asarray(value)):
            if isinstance(item, (bytes, str)):
                found += self._read_text(name, item.decode(errors="replace") if isinstance(item, bytes) else str(item))
            elif np.asarray(item).dtype.kind in "iufb":
                found.append(item)
            else:
                self.unread.append(f"{name} is {item!r}, which is no number")
        return [number for number in found if not np.isnan(number)]

    def _read_text(self, name: str, text: str) -> list:
        words = re.split(r"[,\s]+", text.strip(" []()"))
        try:
            return [number_of_text(word) for word in words]
        except ValueError:
            self.unread.append(f"{name} is {text!r}, which is no number")
            return []


def netcdf_fill(dtype: np.dtype) -> int | None:
    """Return what the NetCDF library fills in where no whole number was written; None for bytes and other types."""
    return NETCDF_FILLS.get(f"{dtype.kind}{dtype.itemsize}")


def number_of_text(text: str) -> np.float64 | np.int64:
    """Return a number that is written as text, such as "-9999", "1.e20f" or "0s"; `ValueError` if it is none."""
    text = text.strip()
    if re.fullmatch(r"[+-]?\d{1,18}", text):
        return np.int64(text)
    return np.float64(re.sub(r"(?<=[\d.])[fFdDsSlLbB]$", "", text))


def _fills(attribute: str, number: Any, is_text: bool, stored: np.dtype, is_packed: bool) -> list[Fill]:
    """Return the comparison that a fill value asks for; none if no value can equal it."""
    name, one_step = f"{attribute} {float(number):g}", abs(float(number)) * FLOAT32_STEP
    if stored.kind in "iu":
        info = np.iinfo(stored)
        if float(number).is_integer() and info.min <= number <= info.max:
            return [Fill(name, stored.type(int(number)), False, 0.0, not is_text)]
        return [Fill(name, np.float64(number), True, one_step, False)] if is_packed else []
    with np.errstate(over="ignore"):
        cast = stored.type(number)
    given = np.asarray(number).dtype
    is_coarser = given.kind == "f" and given.itemsize < stored.itemsize
    is_plain = bool(np.float64(cast) == np.float64(number)) and not is_text
    return [Fill(name, cast, False, one_step if is_coarser else 0.0, is_plain)]


def _equals(values: np.ndarray, value: Any, tolerance: float) -> np.ndarray:
    if not tolerance or not np.isfinite(tolerance):
        return values == value
    return np.abs(values - np.float64(value)) <= tolerance


def _beyond(values: np.ndarray, limit: Limit) -> np.ndarray:
    """Return where values are outside of a limit, compared in the coarser of both types of float."""
    value, given = limit.value, np.asarray(limit.value).dtype
    if values.dtype.kind == "f":
        coarser = min((values.dtype, given), key=lambda kind: kind.itemsize) if given.kind == "f" else values.dtype
        with np.errstate(over="ignore"):
            values, value = values.astype(coarser, copy=False), coarser.type(value)
    with np.errstate(invalid="ignore"):  # NaN is on no side
        return values > value + limit.slack if limit.is_upper else values < value - limit.slack


def _as_unsigned(number: Any, stored: np.dtype) -> Any:
    """Return a number that was stored in the signed type of the same size as unsigned."""
    given = np.asarray(number)
    if stored.kind == "u" and given.dtype.kind == "i" and number < 0:
        return stored.type(int(number) % (1 << 8 * stored.itemsize))
    return number
