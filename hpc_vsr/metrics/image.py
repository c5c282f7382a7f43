"""Image metrics as pure functions of two frames, and the profiles in which they are computed.

Every figure in a report names its profile, because profiles differ by more than a decibel for the same frames.

paper
    As in the paper: Y of BT.601 in full range, 2 pixels cut from each side, SSIM with scikit-image's defaults (7x7
    uniform window, sample covariance). Y is rounded to 8 bit if the data set is of 8 bit. Fields: values 0..1 on the
    training split, not rounded; of several variables the mean of their MSE and of their SSIM.
sr
    As in the super-resolution literature: Y of BT.601 in studio range (16..235), `scale` pixels cut from each side,
    SSIM of Wang et al. 2004 (11x11 Gaussian of sigma 1.5) over the region where the window fits. Video only.
field
    As for simulations, in physical units: `hpc_vsr.metrics.field`. Fields only, each variable by itself.
"""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
from skimage.metrics import structural_similarity

Profile = Literal["paper", "sr", "field"]
PAPER_CROP = 2
WANG_SIGMA, WANG_RADIUS = 1.5, 5
BLACK, STUDIO_SPAN = 16.0, 219.0


def list_profiles(is_grey: bool, is_field: bool) -> list[Profile]:
    """Return the profiles that apply to grey levels of a video or images, to a field, or to colour without a white."""
    if is_grey:
        return ["paper", "sr"]
    return ["paper", "field"] if is_field else ["paper"]


def measure(profile: Profile, sr: np.ndarray, hr: np.ndarray, scale: int, is_grey: bool,
            is_8bit: bool = True) -> dict[str, float]:
    """Return MSE, PSNR in dB and SSIM of one frame.

    Parameters
    ----------
    profile : {"paper", "sr"}
    sr, hr : (C, H, W) float32 arrays
        Grey levels 0..255 of Y or RGB if `is_grey`, else values that are 0..1 on the training split. NaN in `hr` means
        no value: it is left out of the MSE, and both frames have the same value there for the SSIM.
    scale : int
    is_grey : bool
    is_8bit : bool
        Whether grey levels are rounded to 8 bit first, as a video of 8 bit is when it is written.

    Returns
    -------
    dict
        ``mse`` (grey levels squared, or of the 0..1 value), ``psnr`` (infinite for equal frames), ``ssim``.
    """
    data_range = 255.0 if is_grey else 1.0
    crop = PAPER_CROP if profile == "paper" else scale
    planes = [(luma(profile, frame, is_8bit) if is_grey else _mixed(frame))[crop:-crop, crop:-crop]
              for frame in (sr, hr)]
    known = ~np.isnan(planes[1])
    error = mean_squared_error(*(plane[known] for plane in planes))
    planes = [np.where(known, plane, 0.0) for plane in planes]
    return {"mse": error, "psnr": psnr(error, data_range),
            "ssim": ssim_default(*planes, data_range) if profile == "paper" else ssim_wang(*planes, data_range)}


def luma(profile: Profile, frame: np.ndarray, is_8bit: bool = True) -> np.ndarray:
    """Return the luma of a profile, (H, W) float64, of (C, H, W) grey levels of Y or RGB.

    They are clipped to 0..255 and, if `is_8bit`, rounded to whole numbers.
    """
    rounded = to_8bit(frame) if is_8bit else np.clip(frame, 0, 255)
    if profile == "paper" and is_8bit:
        plane = rounded[0] if len(rounded) == 1 else cv2.cvtColor(_last(rounded), cv2.COLOR_RGB2YCrCb)[..., 0]
        return plane.astype(np.float64)
    return _mixed(rounded) if profile == "paper" else BLACK + _mixed(rounded) * STUDIO_SPAN / 255


def _mixed(frame: np.ndarray) -> np.ndarray:
    """Return (H, W) float64 of a (C, H, W) frame: its one channel, or Y of R, G and B."""
    weights = np.array([0.299, 0.587, 0.114]) if len(frame) == 3 else np.ones(1)
    return np.tensordot(weights, frame.astype(np.float64), 1)


def to_8bit(frame: np.ndarray) -> np.ndarray:
    """Return grey levels rounded to the nearest integer and clipped to 0..255, uint8."""
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


def mean_squared_error(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean over all values of (a - b)^2, in float64."""
    return float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))


def psnr(mse: float, data_range: float) -> float:
    """Return the peak signal-to-noise ratio 10 log10(data_range^2 / mse) in dB."""
    if mse == 0:
        return math.inf
    return -math.inf if math.isinf(mse) else 10 * math.log10(data_range**2 / mse)


def ssim_default(a: np.ndarray, b: np.ndarray, data_range: float) -> float:
    """Return SSIM with scikit-image's defaults: 7x7 uniform window, sample covariance."""
    return float(structural_similarity(a, b, data_range=data_range))


def ssim_wang(a: np.ndarray, b: np.ndarray, data_range: float) -> float:
    """Return SSIM of Wang et al. 2004: 11x11 Gaussian window of sigma 1.5, mean over the region where it fits."""
    _, values = structural_similarity(a, b, data_range=data_range, gaussian_weights=True, sigma=WANG_SIGMA,
                                      use_sample_covariance=False, full=True)
    return float(values[WANG_RADIUS:-WANG_RADIUS, WANG_RADIUS:-WANG_RADIUS].mean())


def flow_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the DIS optical flow from `first` to `second`, (H, W) uint8: (H, W, 2) displacement in pixels."""
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)


def temporal_error(sr: tuple[np.ndarray, np.ndarray], hr: tuple[np.ndarray, np.ndarray],
                   true_flow: np.ndarray | None = None) -> dict[str, float]:
    """Return the errors of motion in a pair of consecutive frames, (H, W) luma in grey levels each.

    `true_flow` is the flow from the second HR frame to the first, if it is known from another method's measurement.

    Returns
    -------
    dict
        ``tof``: mean length of the difference between the optical flow of SR and of HR, in pixels; the flow is found
        in luma rounded to 8 bit.
        ``warp_error``: root mean square difference, in grey levels, between the second SR frame and the first one
        carried along the flow of HR.
    """
    true_flow = flow_between(to_8bit(hr[1]), to_8bit(hr[0])) if true_flow is None else true_flow
    difference = flow_between(to_8bit(sr[1]), to_8bit(sr[0])) - true_flow
    height, width = hr[0].shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    carried = cv2.remap(sr[0].astype(np.float32), columns + true_flow[..., 0], rows + true_flow[..., 1],
                        cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return {"tof": float(np.linalg.norm(difference, axis=2).mean()),
            "warp_error": math.sqrt(mean_squared_error(carried, sr[1]))}


def _last(frame: np.ndarray) -> np.ndarray:
    """Return a (C, H, W) frame with its channels last in memory."""
    return np.ascontiguousarray(frame.transpose(1, 2, 0))
