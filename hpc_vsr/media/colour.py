"""Converts RGB frames to the channels that a network learns."""

from __future__ import annotations

import cv2
import numpy as np

from hpc_vsr.media.source import Channels

NAMES = {"y": ("Y",), "rgb": ("R", "G", "B")}


def select_channels(rgb: np.ndarray, channels: Channels) -> np.ndarray:
    """Convert (H, W, 3) RGB to (C, H, W): Y of BT.601 in full range (``cv2.COLOR_RGB2YCrCb``), or R, G, B.

    uint8 0..255 stays uint8; float32 in any unit stays float32 (Y = 0.299 R + 0.587 G + 0.114 B).
    """
    if channels == "rgb":
        return np.ascontiguousarray(rgb.transpose(2, 0, 1))
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[None, :, :, 0].copy()
