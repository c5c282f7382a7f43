"""Shows the comparison with bicubic enlargement in an enlarged frame."""

from __future__ import annotations

import cv2
import numpy as np

from hpc_vsr.media.planes import GREY


def show_comparison(enlarged: np.ndarray, lr: np.ndarray) -> None:
    """Replace the left half of a (C, s h, s w) frame by the bicubic enlargement of its (C, h, w) LR frame.

    Both are float32 grey levels, 0..255. A white line of two pixels separates the halves.
    """
    middle = enlarged.shape[2] // 2
    for channel, picture in zip(enlarged, lr, strict=True):
        bicubic = cv2.resize(picture, enlarged.shape[:0:-1], interpolation=cv2.INTER_CUBIC)
        channel[:, :middle] = bicubic[:, :middle]
        channel[:, middle - 1 : middle + 1] = GREY
