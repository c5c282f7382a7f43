"""Places the pictures of a video in time: what is shown when one was dropped, and where frames are missing."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from hpc_vsr.media.video_decode import Stamps
from hpc_vsr.media.video_file import Packets
from hpc_vsr.system.errors import InputError

ASSUMED_RATE = Fraction(25)
STEADY = 0.9  # share of equal intervals from which on a longer one is a gap
AVI_CHUNK = 8  # bytes of an empty one
LISTED = 8  # numbers of frames in a message


@dataclass(frozen=True)
class Index:
    """The frames of a video.

    Attributes
    ----------
    stamps : Stamps
        What the decoder needs to know.
    shown : sequence of int
        For each frame, the time stamp of the picture that it shows. A picture is shown again where one was dropped or
        is damaged.
    times : sequence of int
        Time stamp of each frame, then the end of the last one, in `time_base`.
    time_base : Fraction
    rate : Fraction
        Frames per second.
    breaks : sequence of int
        Frames before which something is missing.
    has_clock : bool
        Whether the times are those of the file, so that its sound fits to them.
    description : dict
        Keys for the description of the source.
    lines, warnings : list of str
        For `hpc_vsr.media.reading.Facts`.
    """

    stamps: Stamps
    shown: Sequence[int]
    times: Sequence[int]
    time_base: Fraction
    rate: Fraction
    breaks: Sequence[int] = ()
    has_clock: bool = True
    description: dict = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def place_in_time(path: Path, packets: Packets, stamps: Stamps, bad: set[int]) -> Index:
    """Place the pictures in time: where one was dropped or is damaged, another one stands in."""
    pictures = stamps.pictures
    good = [stamp for stamp in pictures if stamp not in bad] if bad else pictures
    if not good:
        raise InputError(f"{path}: none of its frames can be decoded; the file is damaged, copy it again")
    is_avi = packets.container == "avi" and packets.time_base * (packets.rate or 0) == 1
    empty = [stamp for stamp in packets.empty if stamp > pictures[0]]
    frames = range(pictures[0], pictures[-1] + 1) if is_avi else sorted({*pictures, *empty}) if empty else pictures
    if len(frames) > path.stat().st_size // AVI_CHUNK + len(pictures):
        raise InputError(f"{path}: its index counts {len(frames)} frames, more than fit into it; the file is damaged, "
                         "copy it again")
    known = set(pictures)
    dropped = [frame for frame, stamp in enumerate(frames) if stamp not in known] if len(frames) > len(known) else []
    damaged = [frame for frame, stamp in enumerate(frames) if stamp in bad] if bad else []
    shown = [good[max(0, bisect.bisect_right(good, stamp) - 1)] for stamp in frames] if dropped or bad else pictures
    times = np.array([*frames, frames[-1] + _last_duration(packets, stamps, frames)])
    gaps, line = ([], f"{len(frames)} frames") if is_avi else _find_gaps(times[:-1], packets.time_base)
    warnings = []
    if dropped:
        warnings.append(f"{path}: {_count(dropped)} dropped by the recorder ({listed(dropped)}); the frame before is "
                        "shown again in place of each")
    if damaged:
        warnings.append(f"{path}: {_count(damaged)} damaged or made from damaged ones ({listed(damaged)}); the frame "
                        "before stands in for each, or the one after at the start")
    if gaps:
        warnings.append(f"{path}: frames are missing before frame {listed(gaps)}, where the time stamps jump; no "
                        "window crosses such a place")
    description = {key: frames for key, frames in (("dropped", dropped), ("damaged", damaged)) if frames}
    return Index(stamps, shown, times.tolist(), packets.time_base, packets.rate or ASSUMED_RATE, gaps,
                 description=description, lines=[line], warnings=warnings)


def _last_duration(packets: Packets, stamps: Stamps, frames: Sequence[int]) -> int:
    of = packets.pts if stamps.given is None else stamps.given
    last = max((number for number in range(len(packets)) if number not in packets.discarded),
               key=lambda number: of[number])
    return packets.durations[last] or (frames[-1] - frames[-2] if len(frames) > 1 else 1)


def _find_gaps(times: np.ndarray, time_base: Fraction) -> tuple[list[int], str]:
    """Return the frames before which others are missing, and a line about the rate.

    Frames are missing where a video with equal intervals has a longer one. One whose intervals vary has no gaps.
    """
    intervals = np.diff(times)
    if not len(intervals):
        return [], "1 frame"
    usual = float(np.median(intervals))
    is_usual = np.abs(intervals - usual) <= max(1.0, 0.1 * usual)  # stamps are rounded
    count, length = len(times), f"{1000 * float(usual * time_base):g} ms"
    if is_usual.mean() < STEADY:
        return [], f"{count} frames at a variable rate, mostly {length} apart"
    gaps = np.flatnonzero(intervals > max(1.5 * usual, usual + 1)) + 1
    return gaps.tolist(), f"{count} frames, {length} apart"


def listed(frames: Sequence[int]) -> str:
    """Return the first numbers of frames, for a message."""
    few = ", ".join(str(frame) for frame in frames[:LISTED])
    return f"{few} and {len(frames) - LISTED} more" if len(frames) > LISTED else few


def _count(frames: Sequence[int]) -> str:
    return f"{len(frames)} frame{'s were' if len(frames) > 1 else ' was'}"
