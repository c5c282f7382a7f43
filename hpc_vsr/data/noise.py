"""Adds the noise of a camera to LR frames, to train a network for noisy recordings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hpc_vsr.media.planes import GREY


def add_noise(frames: Tensor, sigma: float, key: Sequence[int]) -> Tensor:
    """Return frames with white Gaussian noise, as stored: rounded if they are of 8 bits, and within black and white.

    Parameters
    ----------
    frames : Tensor
        Grey levels 0..255, uint8 or float32.
    sigma : float
        Standard deviation in grey levels; 0 returns the frames as they are.
    key : sequence of int
        The same key, sigma and shape give the same noise on every machine.
    """
    if sigma == 0:
        return frames
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    noise = torch.from_numpy(random.standard_normal(tuple(frames.shape), np.float32)).to(frames.device)
    noisy = (frames.float() + sigma * noise).clamp(0, GREY)
    return noisy if frames.is_floating_point() else noisy.round().to(frames.dtype)
