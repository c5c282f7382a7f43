"""Converts RGB frames to the channels that a network learns."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from hpc_vsr.media.planes import GREY, PlaneFormat
from hpc_vsr.media.source import Channels

# weights of red and blue in luma, by the code of the matrix in ISO/IEC 23091-2
WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087),
           9: (0.2627, 0.0593)}
BT601 = 6
NAMES = {"y": ("Y",), "rgb": ("R", "G", "B")}


def select_channels(rgb: np.ndarray, channels: Channels) -> np.ndarray:
    """Convert (H, W, 3) RGB to (C, H, W): Y of BT.601 in full range (``cv2.COLOR_RGB2YCrCb``), or R, G, B.

    uint8 0..255 stays uint8; float32 in any unit stays float32 (Y = 0.299 R + 0.587 G + 0.114 B).
    """
    if channels == "rgb":
        return np.ascontiguousarray(rgb.transpose(2, 0, 1))
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[None, :, :, 0].copy()


def rgb_of_planes(planes: Sequence[np.ndarray], form: PlaneFormat, matrix: int) -> np.ndarray:
    """Convert coded luma and chroma of full size to (3, H, W) float32 RGB in grey levels, 0 black and 255 white.

    For more than 8 bits, where swscale makes 254 of white. ISO/IEC 23091-2, equations 38 to 60.
    """
    red_weight, blue_weight = WEIGHTS.get(matrix, WEIGHTS[BT601])
    luma = form.to_grey(planes[0])
    blueness, redness = ((plane.astype(np.float32) - form.grey_chroma) * np.float32(GREY / form.chroma_extent)
                         for plane in planes[1:3])
    red, blue = luma + 2 * (1 - red_weight) * redness, luma + 2 * (1 - blue_weight) * blueness
    green = (luma - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    return np.stack([red, green, blue]).clip(0, GREY)


def planes_of_rgb(rgb: np.ndarray, form: PlaneFormat, matrix: int) -> list[np.ndarray]:
    """Convert (3, H, W) float32 RGB in grey levels to coded luma and chroma of full size, rounded."""
    red_weight, blue_weight = WEIGHTS.get(matrix, WEIGHTS[BT601])
    red, green, blue = rgb.clip(0, GREY)
    luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    differences = (blue - luma) / (2 * (1 - blue_weight)), (red - luma) / (2 * (1 - red_weight))
    codes = [luma * (form.extent / GREY) + form.black,
             *(difference * (form.chroma_extent / GREY) + form.grey_chroma for difference in differences)]
    return [np.rint(code).clip(0, form.largest).astype(form.dtype) for code in codes]
