"""Finds undeclared fill values of a field: one value, exactly repeated, far from all others."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

from hpc_vsr.media.field_values import FieldFrames
from hpc_vsr.system.errors import InputError

FAR, VERY_FAR = 0.2, 10.0  # of the range of all other values: for a value that looks like a fill value, and any other
FILL_LIKE = re.compile(r"-?(9{3,}|9{2,}\.9+|7{4,}|8{4,}|32767|32768|2147483647|2147483648)")
FEW = 4096  # cells of a frame that are looked at first


def find_outliers(values: np.ndarray) -> tuple[dict[float, int], float, float]:
    """Return values that are far from all others of a frame, with their numbers of cells, and the others' range.

    Up to two values at each end are tried. All cells of an outlier are exactly equal.
    """
    found: dict[float, int] = {}
    rest = values.ravel()
    low, high = float(rest.min()), float(rest.max())
    # mostly a few cells show that neither end is far from all others, which is faster
    some, near = rest[:: max(1, rest.size // FEW)], (high - low) * FAR / (1 + FAR)
    if ((some > low) & (some <= low + near)).any() and ((some < high) & (some >= high - near)).any():
        return found, low, high
    for _ in range(4):
        for value, is_upper in ((high, True), (low, False)):
            others = rest[rest < value] if is_upper else rest[rest > value]
            if not others.size:
                return found, low, high  # a constant
            next_low, next_high = float(others.min()), float(others.max())
            gap = value - next_high if is_upper else next_low - value
            if gap > _far(value) * (next_high - next_low) and (looks_like_fill(value) or rest.size - others.size > 1):
                found[value] = rest.size - others.size
                rest, low, high = others, next_low, next_high
                break
        else:
            break
    return found, low, high


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
    told = []
    for value, cells in outliers.items():
        gap, is_upper = max(value - high, low - value), value > high
        if cells < 2 or gap <= _far(value) * (high - low) or frames.decoders[0].missing.has_limit(is_upper):
            continue
        what = (f"{frames.paths[0]}: {frames.name} is exactly {_shortest(value)} in {cells:,} cells, far from all its "
                f"other values ({low:.6g} to {high:.6g})")
        declare = f"give the variable the attribute missing_value = {_shortest(value)}"
        if looks_like_fill(value):
            raise InputError(f"{what}; if that stands for a missing value, {declare}; if it is one of its values, the "
                             f"attribute {'valid_max' if is_upper else 'valid_min'} = {_shortest(value)}")
        if high > low:  # else the variable has two values, such as a mask
            told.append(f"{what}; it is taken as data: if it stands for a missing value, {declare}")
    return told


def _shortest(value: float) -> str:
    """Return the shortest text of a number, in float32 if it is one: -999.9 and not -999.9000244."""
    in_float32 = np.float32(value)
    return f"{float(str(in_float32)) if in_float32 == value else value:.10g}"


def _far(value: float) -> float:
    return FAR if looks_like_fill(value) else VERY_FAR
