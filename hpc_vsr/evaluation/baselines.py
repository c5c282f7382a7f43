"""Tunes the baselines of every evaluation: bicubic enlargement, and Wiener deconvolution of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hpc_vsr.data.blurred import BlurredSplit
from hpc_vsr.data.clips import validation_pairs
from hpc_vsr.data.manifest import Manifest
from hpc_vsr.data.noise import add_noise
from hpc_vsr.media.planes import GREY
from hpc_vsr.models.enlarge import Enlarge
from hpc_vsr.models.wrap import wrapped

NOISE_RANGE = (1e-6, 1e-1)
FRAMES_OF_A_BLUR = 4  # for each of several blurs


def tune_on(manifest: Manifest) -> float | list[float]:
    """Return the noise-to-signal power for a data set, tuned on its validation split; of several variables for each."""
    pairs, blur = validation_pairs(manifest), manifest.degradation.blur_sigma
    if not manifest.has_variables:
        return tune_noise(pairs, manifest.scale, blur, manifest.periodic)
    return [tune_noise([(lr[channel : channel + 1], hr[channel : channel + 1]) for lr, hr in pairs], manifest.scale,
                       blur, manifest.periodic) for channel in range(len(manifest.channels))]


def tune_blurs(manifest: Manifest, sigmas: Sequence[float], camera_noise: Sequence[float] = (0.0,)) -> list[float]:
    """Return the noise-to-signal power for each blur, and each camera noise within it.

    They are tuned on the validation split of one variable, or of grey levels and colours.
    """
    found = []
    for sigma in sigmas:
        kind = functools.partial(BlurredSplit, sigmas=[sigma])
        pairs = validation_pairs(manifest, FRAMES_OF_A_BLUR, kind)
        for level in camera_noise:
            noisy = [(_with_noise(lr, level, number, manifest.is_8bit), hr) for number, (lr, hr) in enumerate(pairs)]
            found.append(tune_noise(noisy, manifest.scale, sigma, manifest.periodic))
    return found


def _with_noise(lr: Tensor, level: float, number: int, is_8bit: bool) -> Tensor:
    """Return an LR frame of values 0..1 with camera noise in grey levels."""
    if level == 0:
        return lr
    grey = lr * GREY
    return add_noise(grey.round().to(torch.uint8) if is_8bit else grey, level, [number]).float() / GREY


def tune_noise(frames: Sequence[tuple[Tensor, Tensor]], scale: int, sigma: float, periodic: str = "") -> float:
    """Return the noise-to-signal power K with which Wiener deconvolution has the least mean squared error.

    Parameters
    ----------
    frames : sequence of (lr, hr)
        (C, h, w) and (C, scale h, scale w) float32 of one value range: frames of the validation split. NaN in hr is
        left out.
    scale : int
    sigma : float
        Standard deviation of the blur in HR pixels.
    periodic : {"", "x", "y", "xy"}
        Axes at whose ends the frames go on at the other side.

    Returns
    -------
    float
        K between 1e-6 and 1e-1, to three digits; 1e-1 without a blur, where there is nothing to deconvolve.
    """
    if sigma == 0:
        return NOISE_RANGE[1]
    from scipy.optimize import minimize_scalar  # slow to import, and used once a run

    def error(exponent: float) -> float:
        enlarge = Enlarge("wiener", scale, sigma, 10**exponent)
        with torch.inference_mode():
            return sum(torch.nanmean((wrapped(enlarge, lr[None], enlarge.reach, periodic)[0] - hr) ** 2).item()
                       for lr, hr in frames)

    low, high = (math.log10(limit) for limit in NOISE_RANGE)
    best = minimize_scalar(error, bounds=(low, high), method="bounded", options={"xatol": 0.01})
    return float(f"{10**best.x:.2e}")
