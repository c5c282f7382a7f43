"""Finds undeclared fill values of a field: a few values, each exactly repeated, far from all others."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import numpy as np

from hpc_vsr.media.field_values import FieldFrames
from hpc_vsr.system.errors import InputError

FAR, VERY_FAR = 0.2, 10.0  # of the range of all other values: for a value that looks like a fill value, and any other
FILL_LIKE = re.compile(r"-?(9{3,}|9{2,}\.9+|7{4,}|8{4,}|32767|32768|2147483647|2147483648)")
MOST = 4  # values at one end that are tried
FEW = 4096  # cells of a frame that are looked at first


def find_outliers(values: np.ndarray) -> tuple[dict[float, int], float, float]:
    """Return values that are far from all others of a frame, with their numbers of cells, and the others' range.

    Up to four values at each end are tried, which may be near each other: the innermost one counts. All cells of an
    outlier are exactly equal.
    """
    found: dict[float, int] = {}
    rest = values.ravel()
    low, high = float(rest.min()), float(rest.max())
    # mostly there are more values near each end than are tried, and a few cells show it
    near = (high - low) * FAR / (1 + FAR)
    for some in (_some(rest), rest):
        if all(len(np.unique(_some(end))) > MOST for end in (some[some <= low + near], some[some >= high - near])):
            return found, low, high
    for is_upper in (True, False, True, False):  # those of one end may hide those of the other
        at_end, rest = _peel(rest, is_upper)
        found |= at_end
    return found, float(rest.min()), float(rest.max())


def _peel(values: np.ndarray, is_upper: bool) -> tuple[dict[float, int], np.ndarray]:
    """Return the values at one end that are far from all others, with their numbers of cells, and the others."""
    tried: dict[float, int] = {}
    best, rest = {}, values
    for _ in range(MOST):
        value = float(rest.max() if is_upper else rest.min())
        others = rest[rest < value] if is_upper else rest[rest > value]
        codes = {one for one in (*tried, value) if is_code(one, (*tried, value))}
        if not others.size or rest.size - others.size == 1 and value not in codes:
            break
        tried[value] = rest.size - others.size
        rest = others
        low, high = float(rest.min()), float(rest.max())
        gap = value - high if is_upper else low - value
        # several of few values are classes
        are_outliers = len(tried) == 1 or len(codes) == len(tried) or len(np.unique(_some(rest))) > MOST
        if are_outliers and gap > (FAR if value in codes else VERY_FAR) * (high - low):
            best, values = dict(tried), rest
    return best, values


def _some(values: np.ndarray) -> np.ndarray:
    return values[:: max(1, values.size // FEW)]


def is_code(value: float, others: Iterable[float]) -> bool:
    """Return whether a value looks like a fill value, or is a whole number next to one of the others that does."""
    return looks_like_fill(value) or value.is_integer() and any(
        looks_like_fill(other) and abs(other) >= 1000 and abs(other - value) <= MOST for other in others)


def looks_like_fill(value: float) -> bool:
    """Return whether programs use such a number for a missing value: -9999, 999.9, -32768, 1e20, ..."""
    if value != 0 and abs(value) >= 1e8:
        digits = math.log10(abs(value))
        if abs(digits - round(digits)) < 1e-7:
            return True
    return bool(FILL_LIKE.fullmatch(_shortest(value)))


def judge_outliers(frames: FieldFrames, outliers: Mapping[float, int], low: float, high: float) -> list[str]:
    """Return warnings of values that may stand for missing ones; `InputError` for one that looks much like it.

    Parameters
    ----------
    frames : FieldFrames
    outliers : dict
        {value: number of cells} of what `find_outliers` has found in all frames.
    low, high : float
        Range of all other values.
    """
    far = {value: cells for value, cells in outliers.items() if cells > 1
           and max(value - high, low - value) > (FAR if is_code(value, outliers) else VERY_FAR) * (high - low)
           and not frames.decoders[0].missing.has_limit(value > high)}
    codes = sorted(value for value in far if is_code(value, far))
    others = sorted(far.keys() - set(codes)) if high > low else []  # else the variable has two values, such as a mask
    if not (found := codes or others):
        return []
    cells = " and ".join(f"{_shortest(value)} in {far[value]:,} cells" for value in found)
    what = (f"{frames.paths[0]}: {frames.name} is exactly {cells}, far from all its other values ({low:.6g} to "
            f"{high:.6g})")
    declare = f"give the variable the attribute missing_value = {', '.join(map(_shortest, found))}"
    if not codes:
        return [f"{what}; it is taken as data: if it stands for a missing value, {declare}"]
    limits = [f"{name} = {_shortest(value)}" for name, value, is_outside in (
        ("valid_min", codes[0], codes[0] < low), ("valid_max", codes[-1], codes[-1] > high)) if is_outside]
    raise InputError(f"{what}; if that stands for a missing value, {declare}; if it is one of its values, the "
                     f"attribute {' and '.join(limits)}")


def _shortest(value: float) -> str:
    """Return the shortest text of a number, in float32 if it is one: -999.9 and not -999.9000244."""
    in_float32 = np.float32(value)
    # compared as Python floats: NumPy would round the other one to float32, too
    text = repr(float(str(in_float32)) if float(in_float32) == value else value)
    return text.removesuffix(".0")
