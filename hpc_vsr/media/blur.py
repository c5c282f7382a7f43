"""Measures the blur of frames from their content, to tell whether a network was trained for such frames.

The power of a sharp picture falls with about the square of the frequency (Field 1987); a Gaussian blur multiplies it by
exp(-4 pi^2 sigma^2 f^2). Both are fitted to the spectrum, less the power of the white noise, where it is above the
noise. On six videos, degraded with blurs of 0 to 1.5 pixels, this measured 0.4 to 0.7 where there was no blur, and was
right within 0.2 from 1 pixel on: docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hpc_vsr.media.noise import ROUNDING, measure_noise

SLOPE = 2.0  # by which the logarithm of a sharp picture's power falls over that of the frequency
BAND = 0.01  # cycles per pixel
LOWEST, NOISE_FROM = 0.03, 0.42  # below the first the window shows; above the second there is little but noise
LEAST_POWER = 2 * ROUNDING
ABOVE_NOISE = 1.5
LEAST_BANDS, LEAST_SIDE = 8, 32
CAREFUL = 0.97  # share of a measured blur that is undone; to undo too much costs more than to undo too little
OF_SHARP = 0.84  # pixels of the larger frames; measured where these were only reduced, and adds as variances do


def measure_blur(frames: Iterable[np.ndarray]) -> float | None:
    """Return the standard deviation of the Gaussian blur that the frames seem to have, in their pixels.

    Parameters
    ----------
    frames : iterable of (h, w) arrays
        Luma in grey levels, 0..255, of a few frames.

    Returns
    -------
    float or None
        None if they are smaller than 32 pixels or show too little to measure.
    """
    frames = [frame for frame in frames if min(frame.shape) >= LEAST_SIDE]
    if not frames:
        return None
    # take the frequencies from where the window ends to where the noise begins
    power = np.mean([_spectrum(frame) for frame in frames], 0)
    frequency = np.arange(len(power)) * BAND + BAND / 2
    noise = max(LEAST_POWER, ABOVE_NOISE * float(np.median(power[frequency > NOISE_FROM])))
    first = round(LOWEST / BAND)
    below = np.flatnonzero(power[first:] <= noise)
    chosen = slice(first, first + int(below[0]) if len(below) else len(power))
    if chosen.stop - first < LEAST_BANDS:
        return None
    # without blur, power times frequency squared is flat; its decay is that of the blur
    power = np.maximum(power - (measure_noise(frames) or 0.0) ** 2 - ROUNDING, ROUNDING)
    slope = np.polyfit(frequency[chosen] ** 2, np.log(power[chosen] * frequency[chosen] ** SLOPE), 1)[0]
    return float(np.sqrt(max(0.0, -slope)) / (2 * np.pi))


def before_reduction(measured: float, scale: int) -> float:
    """Return the blur of the larger frames, in their pixels, that `measure_blur` finds after a reduction by `scale`.

    docs/decisions.md has how far it is off: after a reduction by 2 up to 0.2 pixels, by 4 more, and less than half a
    pixel of an LR frame cannot be told from none.
    """
    return float(np.sqrt(max(0.0, (scale * measured) ** 2 - OF_SHARP**2)))


def blur_to_undo(measured: float, scale: int) -> float:
    """Return the blur of the larger frames, in their pixels, whose filter an upscaling takes; see `before_reduction`.

    It is a little smaller than what was measured, because a filter for too large a blur costs more than one for too
    small a blur: docs/decisions.md.
    """
    return CAREFUL * before_reduction(measured, scale)


def _spectrum(frame: np.ndarray) -> np.ndarray:
    """Return the mean power in bands of the frequency up to half a cycle per pixel."""
    window = np.outer(*(np.hanning(side) for side in frame.shape))
    power = np.abs(np.fft.fft2((frame - frame.mean()) * window)) ** 2 / (window**2).sum()
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side) for side in frame.shape), indexing="ij"))
    band = (frequency / BAND).astype(int).ravel()
    num_bands = round(0.5 / BAND)
    inside = band < num_bands
    return (np.bincount(band[inside], power.ravel()[inside], num_bands)
            / np.maximum(np.bincount(band[inside], minlength=num_bands), 1))
