"""Scene cuts, where the frames before have nothing to tell about the frames after.

A cut is a change between two neighbouring frames that is large by itself and against the changes around it; so motion,
a fade and a flash of one frame are none. Whether there is one depends on the `REACH_OF_CHANGE` changes on both sides
alone, so that it can be found from any place in a video.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

REACH_OF_CHANGE = 2
LEAST_CHANGE = 8.0  # grey levels; real cuts 44 to 81, ordinary motion up to 20: docs/decisions.md
LEAST_RATIO = 2.0  # to the changes around; real cuts 2.7 to 26, ordinary motion up to 1.5
THUMBNAIL = 48  # pixels of the longer side


def thumbnail(luma: np.ndarray) -> np.ndarray:
    """(H, W) luma, 0..255, to a small float32 picture on which noise and small motion do not count."""
    factor = max(1, max(luma.shape) // THUMBNAIL)
    size = max(1, luma.shape[1] // factor), max(1, luma.shape[0] // factor)
    return cv2.resize(luma.astype(np.float32, copy=False), size, interpolation=cv2.INTER_AREA)


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Mean absolute difference of two thumbnails, in grey levels."""
    return float(np.abs(after - before).mean())


def is_cut(changes: Mapping[int, float], index: int) -> bool:
    """Whether a scene begins with frame `index`; ``changes[i]`` is the change from frame i - 1 to frame i."""
    here = changes.get(index, 0.0)
    around = max(changes.get(index + offset, 0.0) for offset in range(-REACH_OF_CHANGE, REACH_OF_CHANGE + 1) if offset)
    return here >= LEAST_CHANGE and here >= LEAST_RATIO * around
