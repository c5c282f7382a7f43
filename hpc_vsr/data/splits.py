"""Cuts a video into contiguous splits that share no frame, and the splits into shards that lose no window.

A window is `WINDOW` consecutive LR frames; a sample is a window and the HR frame at its centre. Windows never cross a
split. Inside a split, neighbouring shards share the frames that the windows at their border need.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpc_vsr.system.errors import InputError

WINDOW = 5
REACH = WINDOW // 2  # frames on each side of a centre frame
SPLITS = ("train", "val", "test")


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
    """

    train: float = 0.7
    val: float = 0.1
    test: float = 0.2

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
        raise InputError(f"has {num_frames} frames; at least {WINDOW * len(SPLITS)} are needed, "
                         f"{WINDOW} consecutive ones for each of {', '.join(SPLITS)}")
    val_start = round(num_frames * fractions.train)
    test_start = round(num_frames * (fractions.train + fractions.val))
    test_start = min(max(test_start, 2 * WINDOW), num_frames - WINDOW)
    val_start = min(max(val_start, WINDOW), test_start - WINDOW)
    return {"train": (0, val_start), "val": (val_start, test_start), "test": (test_start, num_frames)}


def plan_shards(splits: dict[str, tuple[int, int]], num_shards: int) -> list[ShardPlan]:
    """Distribute `num_shards` shards over the splits by their samples, at least one each, in order of time.

    Raises `InputError` if there are fewer shards than splits, or more than the samples can fill.
    """
    samples = {split: stop - start - 2 * REACH for split, (start, stop) in splits.items()}
    counts = _apportion(num_shards, samples)
    plans = []
    for split, (start, _) in splits.items():
        count = counts[split]
        for index in range(count):
            first = start + samples[split] * index // count
            last = start + samples[split] * (index + 1) // count
            plans.append(ShardPlan(f"{split}-{index:05d}-of-{count:05d}.h5", split, first, last + 2 * REACH))
    return plans


def spread_evenly(frames: range, count: int) -> list[int]:
    """Return up to `count` of the frames, at equal distances and half of one from both ends."""
    count = min(count, len(frames))
    return [frames[(2 * index + 1) * len(frames) // (2 * count)] for index in range(count)]


def window_around(centre: int, first: int, stop: int) -> list[int]:
    """Return the frames of the window around a centre; the nearest of first..stop-1 stand in for those beyond."""
    return [min(max(index, first), stop - 1) for index in range(centre - REACH, centre + REACH + 1)]


def _apportion(num_shards: int, samples: dict[str, int]) -> dict[str, int]:
    """Apportion shards by largest remainder; every split gets at least one and at most as many as its samples."""
    total = sum(samples.values())
    if num_shards < len(samples):
        raise InputError(f"shards: {num_shards} are too few; each of {', '.join(samples)} needs one, "
                         f"so at least {len(samples)}")
    if num_shards > total:
        raise InputError(f"shards: {num_shards} are more than the {total} samples can fill; at most {total}")
    counts = {split: max(1, num_shards * size // total) for split, size in samples.items()}
    while sum(counts.values()) != num_shards:
        step = 1 if sum(counts.values()) < num_shards else -1
        movable = [split for split in samples if 1 <= counts[split] + step <= samples[split]]
        split = max(movable, key=lambda name: step * (num_shards * samples[name] / total - counts[name]))
        counts[split] += step
    return counts
