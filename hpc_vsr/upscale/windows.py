"""The five frames around each frame of a stream, none of them from another scene."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from hpc_vsr.data.splits import REACH, WINDOW
from hpc_vsr.media.cuts import REACH_OF_CHANGE, change, is_cut, thumbnail

CONTEXT = REACH + REACH_OF_CHANGE  # frames before and after that decide what a frame becomes
Picture = TypeVar("Picture")


def spread(frames: range, count: int = 5) -> range:
    """A few of them, from the first on."""
    return frames[:: max(1, len(frames) // count)][:count]


def to_luma(picture: np.ndarray) -> np.ndarray:
    """(H, W) of a (C, H, W) picture: its mean over the channels."""
    return picture.mean(0)


def windows(pictures: Iterable[Picture], first: int, wanted: range, num_frames: int, luma_of: Any = None
            ) -> Iterator[Sequence[Picture]]:
    """The five pictures around each frame of `wanted`, none of them of another scene.

    Parameters
    ----------
    pictures : iterable
        The pictures number `first`, first + 1, and so on; at least from `CONTEXT` before the first that is wanted to
        `CONTEXT` after the last, as far as there are so many.
    first : int
    wanted : range
    num_frames : int
        Of the whole video.
    luma_of : callable, optional
        Gives the (H, W) luma, 0..255, of a picture, by which cuts are found; None looks for none.

    Yields
    ------
    sequence of 5 pictures
        Where the scene or the video ends, its last picture stands in for those beyond.
    """
    kept: dict[int, Picture] = {}
    changes: dict[int, float] = {}
    numbered, last_small, read = iter(pictures), None, first
    for centre in wanted:
        while read < min(centre + CONTEXT + 1, num_frames):
            kept[read] = next(numbered)
            if luma_of is not None:
                small = thumbnail(luma_of(kept[read]))
                if last_small is not None:
                    changes[read] = change(last_small, small)
                last_small = small
            kept.pop(read - 2 * CONTEXT - 1, None)
            changes.pop(read - 2 * CONTEXT - 1, None)
            read += 1
        begin = max((i for i in range(centre - REACH + 1, centre + 1) if is_cut(changes, i)), default=0)
        end = min((i for i in range(centre + 1, centre + REACH + 1) if is_cut(changes, i)), default=num_frames)
        yield [kept[min(max(index, begin, 0), end - 1)] for index in range(centre - REACH, centre - REACH + WINDOW)]
