"""Looks at the values of a field before the work starts: what is missing, empty, far out or too fine for float32."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hpc_vsr.media.field_outliers import find_outliers, judge_outliers
from hpc_vsr.media.field_values import FieldFrames
from hpc_vsr.media.reading import Facts
from hpc_vsr.system.errors import InputError

LARGEST = 1e30  # above any sensible unit: larger values are undeclared fill values, and arithmetic needs room
SMALLEST = 1e-34  # below it float32 has fewer digits
MOST_BYTES = 8 << 30  # of a field in float32 of which every frame is looked at; of a larger one, some
MOST_LOST = 2.0**-13  # of the range of the values, by which rounding to float32 may change one


@dataclass
class Look:
    """What was seen of the values of a field; `look_at` fills it.

    Attributes
    ----------
    num_looked_at : int
        Frames that were looked at.
    low, high : float
        Least and largest valid value.
    empty : list of int
        Frames without a valid value.
    rules : dict
        {what found missing values: [cells, frames, whether it is a plain comparison]}.
    cells, frames : int
        Missing cells outside of empty frames, and the frames that have some.
    outliers : Counter
        {value: cells} of values that are far from all others of their frame.
    inner_low, inner_high : float
        Range of all other values.
    has_zeros : bool
        Whether there are zeros in a variable whose fill value of 0 is not an attribute.
    rounding : float
        Largest difference between a value and the float32 that is nearest to it.
    """

    num_looked_at: int = 0
    low: float = math.inf
    high: float = -math.inf
    empty: list[int] = field(default_factory=list)
    rules: dict[str, list] = field(default_factory=dict)
    cells: int = 0
    frames: int = 0
    outliers: collections.Counter = field(default_factory=collections.Counter)
    inner_low: float = math.inf
    inner_high: float = -math.inf
    has_zeros: bool = False
    rounding: float = 0.0


def look_at(frames: FieldFrames) -> Look:
    """Look at all frames of a field, or at some of them if it has more than 8 GB.

    Raises
    ------
    InputError
        If a frame cannot be read, has values that nothing can be done with, or no frame has a valid value.
    """
    look = Look()
    for index in _chosen(frames):
        frame = frames.frame(index)
        look.num_looked_at += 1
        valid = None if frame.missing is None else ~frame.missing
        for name, cells, is_plain in frame.rules:
            rule = look.rules.setdefault(name, [0, 0, True])
            rule[:] = rule[0] + cells, rule[1] + 1, rule[2] and is_plain
        if valid is not None and not valid.any():
            look.empty.append(index)
            continue
        if valid is not None:
            look.cells, look.frames = look.cells + int(frame.missing.sum()), look.frames + 1
        values = frame.values if valid is None else frame.values[valid]
        low, high = check_values(frames, index, values)
        look.low, look.high = min(look.low, low), max(look.high, high)
        if any(frames.zero_filled) and low <= 0 <= high:
            look.has_zeros = look.has_zeros or bool((values == 0).any())
        if values.dtype.kind in "iu" or values.dtype.itemsize > 4:
            rounded = values.astype(np.float32).astype(np.float64)
            look.rounding = max(look.rounding, float(np.abs(values - rounded).max()))
        found, inner_low, inner_high = find_outliers(values)
        look.outliers.update(found)
        look.inner_low, look.inner_high = min(look.inner_low, inner_low), max(look.inner_high, inner_high)
    if look.num_looked_at and len(look.empty) == look.num_looked_at:
        rules = ", ".join(f"{cells:,} cells by {name}" for name, (cells, _, _) in look.rules.items())
        raise InputError(f"{frames.paths[0]}: {frames.name} has no valid value in any frame (missing: {rules}); "
                         "if these are data, correct the attributes that declare them missing")
    return look


def check_values(frames: FieldFrames, index: int, values: np.ndarray) -> tuple[float, float]:
    """Return the least and the largest of the valid values of a frame; `InputError` if one is of no use."""
    subject, place = frames.place(index)
    low, high = float(values.min()), float(values.max())
    if math.isinf(low) or math.isinf(high):
        raise InputError(f"{subject} has infinite values {place}; if they stand for missing values, give the "
                         "variable the attribute missing_value = inf")
    largest = max(abs(low), abs(high))
    if largest > LARGEST:
        raise InputError(f"{subject} is as large as {largest:.3g} {place}; if that stands for a missing value, give "
                         "the variable a _FillValue; otherwise choose other units")
    if 0 < largest < SMALLEST:
        raise InputError(f"{subject} is nowhere larger than {largest:.3g} {place}, which is too small for float32; "
                         "choose other units")
    return low, high


def refuse_late_fill(frames: FieldFrames, index: int, values: np.ndarray, look: Look) -> None:
    """Raise `InputError` if a frame that was not looked at has a value that looks like an undeclared fill value."""
    low, high = float(values.min()), float(values.max())
    if look.low <= low and high <= look.high:
        return
    found, inner_low, inner_high = find_outliers(values)
    cells = {value: count + look.outliers[value] for value, count in found.items()}
    judge_outliers(frames, cells, min(look.inner_low, inner_low), max(look.inner_high, inner_high))


def choose_offset(look: Look) -> float:
    """Return what is subtracted from the values so that float32 can hold them; 0 if it can as they are.

    It is subtracted if rounding to float32 changes values by more than 2^-13 of their range, so that one of less than
    2^12 levels is left.
    """
    spread = look.high - look.low
    if not 0 < spread < math.inf or look.rounding <= MOST_LOST * spread:
        return 0.0
    return float(round((look.low + look.high) / 2, -math.floor(math.log10(spread))))


def facts_of(frames: FieldFrames, look: Look, offset: float, units: str) -> Facts:
    """Return what was found out about the values, as facts."""
    lines = [_missing_line(frames, look)]
    warnings = [f"{path}: {text}; it is ignored" for path, decoder in zip(frames.paths, frames.decoders, strict=True)
                for text in decoder.missing.unread]
    warnings += judge_outliers(frames, look.outliers, look.inner_low, look.inner_high)
    if offset:
        lines.append(f"values: {look.low:.10g} to {look.high:.10g} {units}, from which {offset:.10g} is subtracted, "
                     "because float32 is too coarse for them; upscale adds it again")
    if any(frames.zero_filled) and look.has_zeros:
        warnings.append(f"{frames.paths[0]}: the zeros of {frames.name} are taken as data, although 0 is the fill "
                        "value of the Zarr array; if they are missing, give the variable the attribute _FillValue = 0")
    if look.num_looked_at < frames.num_frames:
        lines.append(f"looked at: {look.num_looked_at:,} of {frames.num_frames:,} frames")
    if look.empty:
        warnings.append(f"{frames.paths[0]}: {frames.name} has no valid value in {_list_frames(look.empty)}; no window "
                        "crosses such a frame, and upscale makes an empty frame of it")
    breaks = {index for empty in look.empty for index in (empty, empty + 1) if 0 < index < frames.num_frames}
    return Facts(breaks=sorted(breaks), empty=list(look.empty), lines=lines, warnings=warnings)


def describe(frames: FieldFrames, look: Look, offset: float) -> dict:
    """Return what decides the values beside the attributes that every reader understands; see `SourceInfo`."""
    masked = [name for name, (_, _, is_plain) in look.rules.items() if not is_plain]
    zeros = any(frames.zero_filled) and look.has_zeros
    return {**({"masked_by": masked} if masked else {}), **({"zeros": "data"} if zeros else {}),
            **({"offset": offset} if offset else {})}


def _chosen(frames: FieldFrames) -> Sequence[int]:
    shape = frames.arrays[0].shape if frames.arrays else (0, 0, 0)
    most = max(1, MOST_BYTES // max(1, 4 * shape[1] * shape[2]))
    if frames.num_frames <= most:
        return range(frames.num_frames)
    return [index * frames.num_frames // most for index in range(most)]


def _missing_line(frames: FieldFrames, look: Look) -> str:
    if not look.cells:
        return "missing: no cells" + (f" outside of {_list_frames(look.empty)}" if look.empty else "")
    shape, looked_at = frames.arrays[0].shape, look.num_looked_at - len(look.empty)
    share = 100 * look.cells / (looked_at * shape[1] * shape[2])
    return (f"missing: {look.cells:,} cells ({share:.2g} %) in {look.frames:,} frames, by "
            f"{', '.join(look.rules)}, filled from the nearest")


def _list_frames(numbers: Sequence[int]) -> str:
    """Return text such as "frame 7" or "frames 3, 7..9"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(first) if first == last else f"{first}..{last}" for first, last in runs]
    shown = ", ".join(texts[:8]) + (f", ... ({len(numbers)} in all)" if len(texts) > 8 else "")
    return f"frame{'s' * (len(numbers) > 1)} {shown}"
