"""What an optimiser step is made of: the loss, the learning rate and the moving average of the weights."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn

CHARBONNIER_EPSILON = 1e-3  # in units of the value range

Loss = Literal["mse", "charbonnier"]


def loss_of(kind: Loss, sr: Tensor, hr: Tensor) -> Tensor:
    """Mean over all pixels of the squared error, or of sqrt(error^2 + 1e-6) (Charbonnier); values 0..1."""
    squared = (sr.float() - hr) ** 2
    return squared.mean() if kind == "mse" else torch.sqrt(squared + CHARBONNIER_EPSILON**2).mean()


def learning_rate(step: int, num_steps: int, peak: float, warmup: int, final_fraction: float) -> float:
    """Learning rate of step 0..num_steps-1: linear to `peak` over `warmup` steps, then a cosine to its fraction."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    return peak * (final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress)))


class MovingAverage:
    """Exponential moving average of a network's weights; what is validated and used.

    The decay grows with the steps, min(decay, (1 + step) / (10 + step)), so that the start is forgotten.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged, current = list(self.network.parameters()), list(network.parameters())
        torch._foreach_lerp_(averaged, current, 1 - decay)
