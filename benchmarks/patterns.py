"""Computes moving pictures for tests and benchmarks."""

from __future__ import annotations

import numpy as np


def moving_pattern(num_frames: int, height: int, width: int) -> np.ndarray:
    """Return (T, H, W, 3) uint8: discs and gratings that move.

    Frames differ, so that 8 neighbouring ones cannot be confused.
    """
    rows, columns = np.mgrid[:height, :width]
    frames = []
    for index in range(num_frames):
        wave = 0.5 + 0.5 * np.sin((columns + 2.3 * index) / 3.1) * np.cos((rows - 1.7 * index) / 4.7)
        centre = width / 2 + 6 * np.sin(index / 5), height / 2 + 6 * np.cos(index / 5)
        disc = np.hypot(columns - centre[0], rows - centre[1]) < height / 4
        red = np.where(disc, 0.9 - 0.3 * wave, 0.2 + 0.5 * wave)
        frames.append(np.stack([red, 0.3 + 0.4 * wave, 0.8 - 0.6 * wave * disc], axis=-1))
    return np.rint(np.array(frames) * 255).astype(np.uint8)
