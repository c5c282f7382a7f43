"""Enlarges one frame of grey levels or RGB, and shows the comparison with bicubic enlargement in it."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from hpc_vsr.data.splits import REACH
from hpc_vsr.media.planes import GREY
from hpc_vsr.upscale.upscaler import Upscaler


def enlarge_window(window: np.ndarray, upscaler: Upscaler, compare: bool) -> np.ndarray:
    """Enlarge (C, 5, h, w) float32 grey levels, 0..255, to (C, s h, s w).

    With `compare` the left half is the bicubic enlargement, and a white line of two pixels separates the halves.
    """
    out = upscaler.enlarge(torch.from_numpy(window)).numpy()
    if compare:
        middle = out.shape[2] // 2
        for channel, picture in zip(out, window[:, REACH], strict=True):
            enlarged = cv2.resize(picture, out.shape[:0:-1], interpolation=cv2.INTER_CUBIC)
            channel[:, :middle] = enlarged[:, :middle]
            channel[:, middle - 1 : middle + 1] = GREY
    return out
