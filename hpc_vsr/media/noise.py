"""Measures the white noise of frames from their content, to choose the filters of a network for it.

Source: Liu, Tanaka, Okutomi, "Single-image noise level estimation for blind denoising", IEEE Transactions on Image
Processing 22 (2013). The smallest variance of patches in any direction is that of the noise, if the patches show
little else; those are chosen by the energy of their gradients, which noise alone would not exceed. docs/decisions.md
has how far it is off.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

SIDE = 6  # pixels of a patch
MOST_PATCHES = 20_000  # of a frame
FEWEST_PATCHES = 1000  # with fewer the noise is not measured
CHOSEN_PATCHES = 4000  # at least, the smoothest ones; of few patches the smallest variance is too small
CONFIDENCE = 0.999999  # of patches of noise alone have at most the energy by which they are chosen
ROUNDS = 20
BLACK, WHITE = 0.5, 254.5  # beyond them noise is cut off
ROUNDING = 1 / 12  # variance of rounding to whole grey levels


def measure_noise(frames: Iterable[np.ndarray]) -> float | None:
    """Return the standard deviation of the white noise that the frames seem to have, in grey levels.

    Parameters
    ----------
    frames : iterable of (h, w) arrays
        Luma in grey levels, 0..255, of a few frames.

    Returns
    -------
    float or None
        None if they show too little between black and white to measure.
    """
    from scipy.special import gammaincinv  # slow to import, and used once a run

    patches = [_patches(frame) for frame in frames if min(frame.shape) >= SIDE]
    patches = np.concatenate(patches) if patches else np.empty((0, SIDE**2))
    if len(patches) < FEWEST_PATCHES:
        return None
    gradient = _gradient()
    energy = np.square(patches @ gradient.T).sum(1)
    order = np.argsort(energy)
    patches, energy = patches[order], energy[order]
    # the energy of noise of variance 1 has about a gamma distribution of this mean and variance
    quadratic = gradient.T @ gradient
    mean, variance = np.trace(quadratic), 2 * np.square(quadratic).sum()
    most = variance / mean * float(gammaincinv(mean**2 / variance, CONFIDENCE))
    # choose patches by the noise, and measure the noise in them, until both agree
    found = _least_variance(patches)
    for _ in range(ROUNDS):
        before = found
        found = _least_variance(patches[: max(CHOSEN_PATCHES, int(np.searchsorted(energy, most * before)))])
        if abs(found - before) <= 1e-3 * before:
            break
    return float(np.sqrt(max(0.0, found - ROUNDING)))


def _patches(frame: np.ndarray) -> np.ndarray:
    """Return (N, 36) float64 patches of a frame that are nowhere black or white."""
    patches = np.lib.stride_tricks.sliding_window_view(frame, (SIDE, SIDE))
    inside = np.flatnonzero((patches.min((-1, -2)) > BLACK) & (patches.max((-1, -2)) < WHITE))
    inside = inside[:: max(1, len(inside) // MOST_PATCHES)]
    return patches[np.unravel_index(inside, patches.shape[:2])].reshape(-1, SIDE**2).astype(np.float64)


def _gradient() -> np.ndarray:
    """Return the (D, 36) central differences of a patch, in rows and in columns."""
    differences = []
    for row in range(SIDE):
        for column in range(SIDE - 2):
            one = np.zeros((SIDE, SIDE))
            one[row, column], one[row, column + 2] = -0.5, 0.5
            differences += [one.ravel(), one.T.ravel()]
    return np.array(differences)


def _least_variance(patches: np.ndarray) -> float:
    """Return the smallest variance of patches in any direction."""
    return float(np.linalg.eigvalsh(np.cov(patches, rowvar=False))[0])
