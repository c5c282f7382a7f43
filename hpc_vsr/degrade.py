"""The degradation that makes low-resolution frames from high-resolution ones, with OpenCV as in the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from hpc_vsr.errors import InputError


@dataclass(frozen=True)
class Degradation:
    """How the LR frames are made from the HR ones.

    Attributes
    ----------
    kind : str
        BD: Gaussian blur, then bicubic reduction (the report's). BI: bicubic reduction alone.
    sigma : float
        Standard deviation of the blur, in HR pixels.
    scale : int
        Factor between LR and HR size.
    """

    kind: Literal["BD", "BI"] = "BD"
    sigma: float = 3.0
    scale: Literal[2, 4] = 2

    @property
    def blur_sigma(self) -> float:
        """Standard deviation of the blur in HR pixels, 0 without one."""
        return self.sigma if self.kind == "BD" else 0.0

    def __post_init__(self):
        if self.kind == "BD" and not 0 < self.sigma <= 10:
            raise InputError(f"degradation.sigma: must be above 0 and at most 10 HR pixels, found {self.sigma}; "
                             'for no blur set degradation.kind to "BI"')


def degrade(hr: np.ndarray, degradation: Degradation) -> np.ndarray:
    """Make an LR frame: ``cv2.GaussianBlur`` on HR, then ``cv2.INTER_CUBIC`` to 1/scale.

    Parameters
    ----------
    hr : (C, H, W) array, uint8 (0..255) or float32 (any unit)
        H and W are multiples of the scale. No NaN.
    degradation : Degradation

    Returns
    -------
    (C, H / scale, W / scale) array of the same dtype. OpenCV rounds uint8 after the blur and after the reduction, and
    truncates the kernel at 3 sigma there, at 4 sigma for float32.
    """
    height, width = hr.shape[1] // degradation.scale, hr.shape[2] // degradation.scale
    assert (height * degradation.scale, width * degradation.scale) == hr.shape[1:], hr.shape
    planes = []
    for plane in hr:
        if degradation.kind == "BD":
            plane = cv2.GaussianBlur(plane, (0, 0), degradation.sigma)
        planes.append(cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC))
    return np.stack(planes)


def crop_to_multiple(frame: np.ndarray, scale: int) -> np.ndarray:
    """Drop the last rows and columns of a (C, H, W) frame that do not fill a whole LR pixel."""
    return frame[:, : frame.shape[1] // scale * scale, : frame.shape[2] // scale * scale]
