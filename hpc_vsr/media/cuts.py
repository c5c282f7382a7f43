"""Finds scene cuts, across which frames tell nothing about each other.

A cut is a change between two neighbouring frames that is large in itself and large against the changes around it. So
motion, a fade and a flash of one frame are not cuts. A cut depends only on the `REACH_OF_CHANGE` changes on both sides,
so it can be found from any place in a video.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

REACH_OF_CHANGE = 2
LEAST_CHANGE = 8.0  # grey levels; real cuts have 44 to 81, ordinary motion up to 20: docs/decisions.md
LEAST_RATIO = 2.0  # to the changes around it; real cuts have 2.7 to 26, ordinary motion up to 1.5
THUMBNAIL = 48  # pixels of the longer side


def thumbnail(luma: np.ndarray) -> np.ndarray:
    """Reduce (H, W) luma, 0..255, to a small float32 picture that hides noise and small motion."""
    factor = max(1, max(luma.shape) // THUMBNAIL)
    size = max(1, luma.shape[1] // factor), max(1, luma.shape[0] // factor)
    return cv2.resize(luma.astype(np.float32, copy=False), size, interpolation=cv2.INTER_AREA)


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Return the mean absolute difference of two thumbnails, in grey levels."""
    return float(np.abs(after - before).mean())


def is_cut(changes: Mapping[int, float], index: int) -> bool:
    """Check whether a scene begins with frame `index`; ``changes[i]`` is the change from frame i - 1 to frame i."""
    here = changes.get(index, 0.0)
    around = max(changes.get(index + offset, 0.0) for offset in range(-REACH_OF_CHANGE, REACH_OF_CHANGE + 1) if offset)
    return here >= LEAST_CHANGE and here >= LEAST_RATIO * around
