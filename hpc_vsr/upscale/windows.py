"""Makes the window of five frames around each frame of a stream, with frames of only one scene."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from hpc_vsr.data.splits import REACH, window_around
from hpc_vsr.media.cuts import REACH_OF_CHANGE, change, is_cut, thumbnail

CONTEXT = REACH + REACH_OF_CHANGE  # number of frames before and after a frame that influence its result
Picture = TypeVar("Picture")


def pick_few(frames: range, count: int = 5) -> range:
    """Return up to `count` of the frames, evenly spaced from the first on."""
    return frames[:: max(1, len(frames) // count)][:count]


def to_luma(picture: np.ndarray) -> np.ndarray:
    """Return the mean over the channels of a (C, H, W) picture, (H, W)."""
    return picture.mean(0)


def windows(pictures: Iterable[Picture], first: int, wanted: range, num_frames: int, luma_of: Any = None,
            breaks: Sequence[int] = ()) -> Iterator[Sequence[Picture]]:
    """Yield the five pictures around each frame of `wanted`, none of them from another scene.

    Parameters
    ----------
    pictures : iterable
        Pictures number `first`, first + 1, and so on; at least from `CONTEXT` before the first wanted frame to
        `CONTEXT` after the last one, as far as the video has them.
    first : int
    wanted : range
    num_frames : int
        Number of frames of the whole video.
    luma_of : callable, optional
        Returns the (H, W) luma, 0..255, of a picture, in which cuts are found; without it no cuts are looked for.
    breaks : sequence of int
        Frames before which something is missing; see `hpc_vsr.media.reading.Facts`. They count as cuts.

    Yields
    ------
    sequence of 5 pictures
        Beyond an end of the scene or the video, the last picture at that end stands in.
    """
    kept: dict[int, Picture] = {}
    changes: dict[int, float] = {}
    numbered, last_small, read, broken = iter(pictures), None, first, frozenset(breaks)
    for centre in wanted:
        # read ahead as far as a cut near this frame can be decided, and forget what lies too far behind
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
        # the scene is the range between the nearest cuts; frames outside are replaced by its first or last
        before, after = range(centre - REACH + 1, centre + 1), range(centre + 1, centre + REACH + 1)
        begin = max((i for i in before if i in broken or is_cut(changes, i)), default=0)
        end = min((i for i in after if i in broken or is_cut(changes, i)), default=num_frames)
        yield [kept[index] for index in window_around(centre, begin, end)]
