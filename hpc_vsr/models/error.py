"""A head that predicts the error of each pixel that a trained network makes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc_vsr.models.compact import Block
from hpc_vsr.models.core import Core
from hpc_vsr.models.network import LOST, Network

WIDTH, NUM_BLOCKS = 16, 2
FIRST_GUESS = 0.01  # of the error at the start, in values 0..1
CHANGES = 20.0  # scale of what the core adds to its residual path, which is small beside the frames
RANGE = (-5.0, 5.0)  # of the logarithm of an error over the first guess


class ErrorHead(nn.Module):
    """Network from what a core sees and makes to the standard deviation of its error, in values 0..1.

    It computes at LR size, like `Compact`.

    Parameters
    ----------
    channels, scale, num_frames : int
        Those of the core.
    """

    def __init__(self, channels: int, scale: int, num_frames: int):
        super().__init__()
        self.scale = scale
        self.enter = nn.Conv2d(channels * (num_frames + scale**2), WIDTH, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(WIDTH) for _ in range(NUM_BLOCKS)))
        self.last = nn.Conv2d(WIDTH, channels * scale**2, 3, padding=1)
        self.register_buffer("factor", torch.ones(channels, 1, 1))  # by which the errors were too small
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, seen: Tensor, made: Tensor) -> Tensor:
        """Map (B, C, num_frames, h, w) and (B, C, s (h - 2), s (w - 2)) of values about 0..1 to the latter's shape."""
        seen = seen[..., LOST:-LOST, LOST:-LOST].flatten(1, 2)
        features = self.blocks(self.enter(torch.cat([seen, F.pixel_unshuffle(CHANGES * made, self.scale)], 1)))
        logarithm = F.pixel_shuffle(self.last(features), self.scale).float()
        return FIRST_GUESS * self.factor * logarithm.clamp(*RANGE).exp()


class ErrorCore(Core):
    """A trained core with its head; as the core of a `Network` without a residual path it predicts the error.

    Attributes
    ----------
    core : Core
        Its weights stay as they are.
    head : ErrorHead
    value_range : float
        The core sees and makes values from 0 to this.
    """

    def __init__(self, core: Core, head: ErrorHead, value_range: float):
        super().__init__()
        self.core, self.head, self.value_range = core, head, value_range
        self.scale, self.num_frames, self.has_flow = core.scale, core.num_frames, core.has_flow

    def forward(self, lr: Tensor) -> Tensor:
        with torch.no_grad():
            made = self.core(lr)
        return self.predict(lr, made)

    def predict(self, lr: Tensor, made: Tensor) -> Tensor:
        """Return the error of what the core makes of (B, C, num_frames, h, w), in its range of values."""
        return self.head(lr / self.value_range, made / self.value_range) * self.value_range


def error_network(network: Network, head: ErrorHead) -> Network:
    """Return a network that gives, for the frames that `network` enlarges, the standard deviation of its error."""
    return Network(ErrorCore(network.core, head, network.value_range), None, network.sharpen, network.value_range,
                   frames=network.frames, aligns=network.aligns)
