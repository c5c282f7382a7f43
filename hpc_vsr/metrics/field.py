"""The ``field`` profile: errors of a simulation field in its physical units, and its power spectrum.

rmse, bias
    Root mean square and mean of SR - HR.
q99_error, q999_error
    Difference, SR - HR, of the 99 % and 99.9 % quantiles of the absolute value: below zero the extremes are too weak.
lr_consistency
    Root mean square difference between the LR field and SR degraded as the data were.
spectra
    Power spectra of every frame, less its mean and under a Hann window, averaged over rings of equal wavenumber. The
    log-spectral distance, the error in bands of wavenumber and the effective resolution follow from their mean.

PSNR and MSE use the range of the field in the training split. Nothing is cut off at the border. Values that the source
did not have (NaN in HR) are left out; in the spectra, both fields have the mean there.
"""

from __future__ import annotations

import math

import numpy as np

from hpc_vsr.metrics.image import psnr, ssim_default

BANDS = {"large": (0.0, 0.125), "medium": (0.125, 0.25), "small": (0.25, 0.5)}  # cycles per HR pixel
QUANTILES = {"q99_error": 0.99, "q999_error": 0.999}
RESOLVED = 0.5  # a scale is resolved if the error has less than this share of its power
EMPTY = 1e-9  # share of the largest power; a simulation's truncation leaves less, which no method can restore


def measure_field(sr: np.ndarray, hr: np.ndarray, offset: float, extent: float) -> dict[str, float]:
    """Return the errors of one frame.

    Parameters
    ----------
    sr, hr : (1, H, W) float arrays
        In physical units; NaN in `hr` where there is no value.
    offset, extent : float
        Lowest value and range of the training split.

    Returns
    -------
    dict
        ``mse`` (units squared), ``psnr`` (dB), ``ssim``, ``rmse``, ``bias``, ``q99_error``, ``q999_error`` (units).
    """
    sr, hr = sr[0].astype(np.float64), hr[0].astype(np.float64)
    known = ~np.isnan(hr)
    error = (sr - hr)[known]
    mse = float(np.mean(error**2))
    unit_sr, unit_hr = ((np.where(known, field, offset) - offset) / extent for field in (sr, hr))
    quantiles = {name: float(np.quantile(np.abs(sr[known]), share) - np.quantile(np.abs(hr[known]), share))
                 for name, share in QUANTILES.items()}
    return {"mse": mse, "psnr": psnr(mse, extent), "ssim": ssim_default(unit_sr, unit_hr, 1.0),
            "rmse": math.sqrt(mse), "bias": float(np.mean(error)), **quantiles}


def power_spectra(sr: np.ndarray, hr: np.ndarray) -> dict[str, np.ndarray]:
    """Return the ring-averaged power spectra of SR, HR and SR - HR, each (R,), of a (1, H, W) frame; units squared."""
    known = ~np.isnan(hr[0])
    mean = hr[0][known].mean(dtype=np.float64)
    fields = {"sr": np.where(known, sr[0] - mean, 0.0), "hr": np.where(known, hr[0] - mean, 0.0)}
    fields["error"] = fields["sr"] - fields["hr"]
    return {name: _ring_average(field) for name, field in fields.items()}


def wavenumbers(height: int, width: int) -> np.ndarray:
    """Return the wavenumbers of the rings of `power_spectra` in cycles per pixel, (R,).

    They go up to 0.5, as fine as the shorter side allows.
    """
    count = min(height, width) // 2
    return (np.arange(1, count + 1)) / (2 * count)


def summarise_spectra(k: np.ndarray, sr: np.ndarray, hr: np.ndarray, error: np.ndarray) -> dict[str, float | None]:
    """Return the figures that follow from mean spectra, (R,) each, over the wavenumbers `k`.

    Returns
    -------
    dict
        ``log_spectral_distance``: root mean square of 10 log10(SR / HR), dB, over the rings in which HR has more than
        a billionth of its largest power.
        ``band_large``, ``band_medium``, ``band_small``: 10 log10 of the power of SR over that of HR in the band, dB.
        ``effective_resolution``: wavelength in HR pixels from which on the error has less than half the power of HR;
        None if it never has.
    """
    tiny = np.finfo(np.float64).tiny
    filled = hr > EMPTY * hr.max()
    ratio = 10 * np.log10((sr[filled] + tiny) / hr[filled])
    distance = float(np.sqrt(np.mean(ratio**2))) if len(ratio) else 0.0
    figures: dict[str, float | None] = {"log_spectral_distance": distance}
    for name, (low, high) in BANDS.items():
        inside = (k > low) & (k <= high)
        # weighted by k, because the number of modes in a ring is proportional to it
        powers = [np.sum(k[inside] * power[inside]) + tiny for power in (sr, hr)]
        figures[f"band_{name}"] = float(10 * np.log10(powers[0] / powers[1]))
    lost = np.flatnonzero(error >= RESOLVED * hr)
    resolved = len(k) if not len(lost) else int(lost[0])
    figures["effective_resolution"] = float(1 / k[resolved - 1]) if resolved else None
    return figures


def _ring_average(field: np.ndarray) -> np.ndarray:
    """Return the power of a field under a Hann window, averaged over rings of equal wavenumber."""
    height, width = field.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(np.fft.rfft2(field * window)) ** 2 / np.sum(window**2)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    weight = np.full(power.shape, 2.0)  # rfft2 keeps one half of the plane
    weight[:, 0] = 1.0
    if width % 2 == 0:
        weight[:, -1] = 1.0
    count = min(height, width) // 2
    ring = np.rint(radius * 2 * count).astype(int)
    chosen = (ring >= 1) & (ring <= count)
    sums, weights = (np.bincount(ring[chosen], values[chosen], minlength=count + 1)[1:]
                     for values in (power * weight, weight))
    return sums / np.maximum(weights, 1)
