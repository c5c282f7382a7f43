"""Cuts a video into contiguous splits that share no frame, and the splits into shards that lose no window.

A window is `WINDOW` consecutive LR frames; a sample is a window and the HR frame at its centre. Windows never cross a
split, nor a place where frames are missing. Otherwise neighbouring shards of a split share the frames that the windows
at their border need.
"""

from __future__ import annotations

import bisect
import collections
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hpc_vsr.system.errors import InputError

WINDOW = 5
REACH = WINDOW // 2  # frames on each side of a centre frame
SPLITS = ("train", "val", "test")


class TooShort(InputError):
    """A source has too few consecutive frames for its splits; a collection leaves such a clip out."""


@dataclass(frozen=True)
class SplitFractions:
    """Share of the frames in each split; the splits are contiguous blocks in this order.

    Attributes
    ----------
    train : float
        Share for training.
    val : float
        Share for choosing the best weights and tuning the Wiener noise.
    test : float
        Share for measuring. All three are positive and add up to 1.
    by : str
        time: each clip has all three splits. clip: each clip of a collection is in one split.
    """

    train: float = 0.7
    val: float = 0.1
    test: float = 0.2
    by: Literal["time", "clip"] = "time"

    def __post_init__(self):
        fractions = (self.train, self.val, self.test)
        if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
            raise InputError(f"split: train, val and test must be positive and add up to 1, found {fractions}")


@dataclass(frozen=True)
class ShardPlan:
    """One shard: a contiguous run of frames of one split.

    Attributes
    ----------
    name : str
        File name, ``train-00000-of-00012.h5``.
    split : str
    start, stop : int
        Frames of the source that it stores, stop excluded. Their samples have the centres
        start + 2 .. stop - 3.
    """

    name: str
    split: str
    start: int
    stop: int

    @property
    def num_frames(self) -> int:
        return self.stop - self.start

    @property
    def num_samples(self) -> int:
        return self.num_frames - 2 * REACH


def split_frames(num_frames: int, fractions: SplitFractions) -> dict[str, tuple[int, int]]:
    """Cut ``num_frames`` frames into contiguous splits; return {split: (start, stop)}.

    Every split gets at least one window; `InputError` if the video is too short for that.
    """
    if num_frames < WINDOW * len(SPLITS):
        raise TooShort(f"has {num_frames} frames; at least {WINDOW * len(SPLITS)} are needed, "
                       f"{WINDOW} consecutive ones for each of {', '.join(SPLITS)}")
    val_start = round(num_frames * fractions.train)
    test_start = round(num_frames * (fractions.train + fractions.val))
    test_start = min(max(test_start, 2 * WINDOW), num_frames - WINDOW)
    val_start = min(max(val_start, WINDOW), test_start - WINDOW)
    return {"train": (0, val_start), "val": (val_start, test_start), "test": (test_start, num_frames)}


def pieces(frames: range, breaks: Sequence[int]) -> list[range]:
    """Cut frames before each of `breaks` that lies inside of them."""
    inside = sorted({index for index in breaks if frames.start < index < frames.stop})
    return [range(*limits) for limits in itertools.pairwise([frames.start, *inside, frames.stop])]


def piece_around(frame: int, num_frames: int, breaks: Sequence[int]) -> tuple[int, int]:
    """Return the limits (start, stop) of the piece between two of the ascending `breaks` that holds a frame."""
    at = bisect.bisect_right(breaks, frame)
    return (breaks[at - 1] if at else 0), (breaks[at] if at < len(breaks) else num_frames)


def plan_shards(splits: dict[str, tuple[int, int]], num_shards: int, breaks: Sequence[int] = ()) -> list[ShardPlan]:
    """Distribute `num_shards` shards over the splits by their samples, at least one each, in order of time.

    A shard never goes across one of `breaks`, the frames before which something is missing: each piece between two
    of them that holds a window gets its own shards, so there may be more shards than asked for.

    Raises `InputError` if there are fewer shards than splits, or more than the samples can fill, and `TooShort` if a
    split has no piece with a whole window.
    """
    parts = _pieces_of_splits(splits, breaks)
    if without := [split for split in splits if split not in dict(parts)]:
        raise TooShort(f"has no {WINDOW} consecutive frames without a gap for {', '.join(without)}; "
                       "change the shares of the splits")
    samples = [len(piece) - 2 * REACH for _, piece in parts]
    if num_shards < len(splits):
        raise InputError(f"shards: {num_shards} are too few; each of {', '.join(splits)} needs one, "
                         f"so at least {len(splits)}")
    counts = _apportion(max(num_shards, len(parts)), samples)
    plans: list[tuple[str, int, int]] = []
    for (split, piece), count, size in zip(parts, counts, samples, strict=True):
        for index in range(count):
            first = piece.start + size * index // count
            last = piece.start + size * (index + 1) // count
            plans.append((split, first, last + 2 * REACH))
    # the shards of a split are numbered through
    totals, named = collections.Counter(split for split, _, _ in plans), collections.Counter()
    shards = []
    for split, start, stop in plans:
        shards.append(ShardPlan(f"{split}-{named[split]:05d}-of-{totals[split]:05d}.h5", split, start, stop))
        named[split] += 1
    return shards


def count_samples(splits: dict[str, tuple[int, int]], breaks: Sequence[int] = ()) -> int:
    """Return how many windows the splits hold that no gap interrupts."""
    return sum(len(piece) - 2 * REACH for _, piece in _pieces_of_splits(splits, breaks))


def _pieces_of_splits(splits: dict[str, tuple[int, int]], breaks: Sequence[int]) -> list[tuple[str, range]]:
    """Return (split, frames) of the pieces without a gap that hold a window."""
    return [(split, piece) for split, limits in splits.items() for piece in pieces(range(*limits), breaks)
            if len(piece) >= WINDOW]


def spread_evenly(frames: Sequence[int], count: int) -> list[int]:
    """Return up to `count` of the frames, at equal distances and half of one from both ends."""
    count = min(count, len(frames))
    return [frames[(2 * index + 1) * len(frames) // (2 * count)] for index in range(count)]


def window_around(centre: int, first: int, stop: int) -> list[int]:
    """Return the frames of the window around a centre; the nearest of first..stop-1 stand in for those beyond."""
    return [min(max(index, first), stop - 1) for index in range(centre - REACH, centre + REACH + 1)]


def _apportion(num_shards: int, samples: Sequence[int]) -> list[int]:
    """Apportion shards by largest remainder; every piece gets at least one and at most as many as its samples."""
    total = sum(samples)
    if num_shards > total:
        raise InputError(f"shards: {num_shards} are more than the {total} samples can fill; at most {total}")
    counts = [max(1, num_shards * size // total) for size in samples]
    while sum(counts) != num_shards:
        step = 1 if sum(counts) < num_shards else -1
        movable = [piece for piece, size in enumerate(samples) if 1 <= counts[piece] + step <= size]
        piece = max(movable, key=lambda number: step * (num_shards * samples[number] / total - counts[number]))
        counts[piece] += step
    return counts
