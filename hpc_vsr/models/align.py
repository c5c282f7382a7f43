"""Moves the frames around a frame onto it, by their optical flow, before a network sees them."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

LEAST_SIDE = 16  # on thinner frames OpenCV fails or crashes
ALIGN_WRAP = 32  # LR pixels at each side of a periodic frame: further away nothing moves a pixel


def align(windows: Tensor) -> Tensor:
    """Return windows whose frames are moved onto the frame in the middle.

    The motion is found at LR size by DIS optical flow (Kroeger et al. 2016, OpenCV's implementation) in the mean of the
    channels, with 256 levels from 0 to 1. A pixel of the other frames is then read where it has moved to (Lanczos over
    8x8 pixels); beyond the frame the outermost pixels are repeated. It is computed on the CPU; the number of threads
    does not change the result.

    Parameters
    ----------
    windows : (B, C, D, h, w) Tensor
        D is odd; values 0..1 on the training split. Tensors without values, whose size alone counts, come back as they
        are.

    Returns
    -------
    (B, C, D, h, w) float32 Tensor
        On the device of `windows`; the frame in the middle is unchanged.
    """
    if windows.device.type == "meta" or type(windows) is not Tensor:
        return windows
    values = windows.detach().to("cpu", torch.float32).numpy().copy()
    for window in values:
        align_window(window)
    return torch.from_numpy(values).to(windows.device)


def align_window(window: np.ndarray) -> None:
    """Do in place what `align` does, to one (C, D, h, w) float32 window."""
    height, width = window.shape[-2:]
    levels = np.rint(np.clip(window.mean(0), 0, 1) * 255).astype(np.uint8)
    levels = np.pad(levels, ((0, 0), *((0, max(0, LEAST_SIDE - side)) for side in (height, width))), mode="edge")
    middle = len(levels) // 2
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    for position in set(range(len(levels))) - {middle}:
        if np.array_equal(levels[position], levels[middle]):
            continue  # at the ends of a video the centre frame stands in for others
        flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(levels[middle], levels[position], None)
        flow = flow[:height, :width]
        for channel in window[:, position]:
            channel[:] = cv2.remap(channel, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LANCZOS4,
                                   borderMode=cv2.BORDER_REPLICATE)
