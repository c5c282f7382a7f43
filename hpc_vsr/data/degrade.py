"""Makes low-resolution frames from high-resolution ones, with OpenCV as in the paper."""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np

from hpc_vsr.data.degradation import Degradation

BLUR_REACH, CUBIC_REACH = 4, 2  # OpenCV's kernels: in sigmas, and in pixels
PROBE = 200  # pixels; more than the reach of any kernel


def degrade(hr: np.ndarray, degradation: Degradation, periodic: str = "") -> np.ndarray:
    """Make an LR frame: ``cv2.GaussianBlur`` on HR, then ``cv2.INTER_CUBIC`` to 1/scale.

    Parameters
    ----------
    hr : (C, H, W) array, uint8 (0..255) or float32 (any unit)
        H and W are multiples of the scale. No NaN.
    degradation : Degradation
    periodic : {"", "x", "y", "xy"}
        Axes at whose ends the frame goes on at the other side; elsewhere it is mirrored or replicated.

    Returns
    -------
    (C, H / scale, W / scale) array of the same dtype. For uint8, OpenCV rounds after the blur and after the reduction
    and truncates the kernel at 3 sigma; for float32, at 4 sigma.
    """
    height, width = hr.shape[1] // degradation.scale, hr.shape[2] // degradation.scale
    assert (height * degradation.scale, width * degradation.scale) == hr.shape[1:], hr.shape
    if periodic:
        margin = 1 + math.ceil((BLUR_REACH * degradation.blur_sigma + CUBIC_REACH) / degradation.scale)
        rows, columns = (margin * (name in periodic) for name in "yx")
        around = [(0, 0), *((degradation.scale * side,) * 2 for side in (rows, columns))]
        return degrade(np.pad(hr, around, "wrap"), degradation)[:, rows : rows + height, columns : columns + width]
    planes = []
    for plane in hr:
        if degradation.kind == "BD":
            plane = blur(plane, degradation.sigma)
        planes.append(cv2.resize(plane, (width, height), interpolation=cv2.INTER_CUBIC))
    return np.stack(planes)


def blur(plane: np.ndarray, sigma: float) -> np.ndarray:
    """Return what ``cv2.GaussianBlur`` makes of an (H, W) plane, bit for bit; for uint8 in half of its time.

    OpenCV blurs uint8 with a kernel of whole 256ths, rows then columns, and rounds once, half up. All sums in between
    are whole 65536ths below 256 and thus exact in float32, for which OpenCV's general filter is faster than its special
    uint8 one.
    """
    kernel = _kernel_in_256ths(sigma) if plane.dtype == np.uint8 else None
    if kernel is None:
        return cv2.GaussianBlur(plane, (0, 0), sigma)
    return _filter(plane, kernel)


def _filter(plane: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    sums = cv2.sepFilter2D(plane, cv2.CV_32F, kernel, kernel / 65536, delta=0.5, borderType=cv2.BORDER_REFLECT_101)
    return sums.astype(np.uint8)


@functools.cache
def _kernel_in_256ths(sigma: float) -> np.ndarray | None:
    """Return OpenCV's kernel for uint8, read off an impulse; None if it does not reproduce what OpenCV does."""
    impulse = np.zeros((1, 2 * PROBE + 1), np.uint8)
    impulse[0, PROBE] = 255
    kernel = cv2.GaussianBlur(impulse, (0, 0), sigma)[0].astype(np.float32)
    kernel = kernel[np.flatnonzero(kernel)[0] : np.flatnonzero(kernel)[-1] + 1]
    if kernel.sum() != 256:
        return None
    # compare the two ways on noise and on black and white
    image = np.random.default_rng(0).integers(0, 256, (PROBE, PROBE), dtype=np.uint8)
    for tried in (image, image // 128 * 255):
        if not np.array_equal(_filter(tried, kernel), cv2.GaussianBlur(tried, (0, 0), sigma)):
            return None
    return kernel


def crop_to_multiple(frame: np.ndarray, scale: int) -> np.ndarray:
    """Drop the last rows and columns of a (..., H, W) frame that do not fill a whole LR pixel."""
    return frame[..., : frame.shape[-2] // scale * scale, : frame.shape[-1] // scale * scale]
