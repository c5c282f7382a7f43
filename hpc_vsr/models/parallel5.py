"""5-parallel: one 2D stream for every frame position, then a deep recursive 3D part.

259,938 parameters with the published 12 feature maps in 2D, 279,438 with 24.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc_vsr.models.blocks import (
    Conv2dToFew,
    Conv3d,
    Recursive,
    ReLU,
    enlarge,
    enter_3d,
    extract,
    leave_3d,
    residual_2d,
    residual_3d,
)
from hpc_vsr.models.core import Core
from hpc_vsr.models.settings import KernelAxes

NUM_FRAMES = 5
FEATURES_3D = 24


class Parallel5(Core):
    """Network from five LR frames to the centre frame at twice the size, less two pixels a side.

    Parameters
    ----------
    channels : int
        Channels of a frame; 1 gives the published network.
    n_2d, n_3d : int
        Depth of the recursions: the 2D block is applied n_2d - 1 times, each of the two 3D blocks n_3d times.
    recursive_streams : sequence of int
        Streams, 0 to 4, that have a recursive block.
    features_2d : int
        Number of feature maps of a stream.
    num_recursive_blocks : int
        Number of such blocks; the recursive streams take them in turn. 0 gives each stream its own.
    axes : {"published", "temporal"}
        Orientation of the kernels of the 3D part.
    """

    has_first_stage = True

    def __init__(self, channels: int = 1, n_2d: int = 5, n_3d: int = 5, recursive_streams: Sequence[int] = (2, 3),
                 features_2d: int = 12, num_recursive_blocks: int = 0, axes: KernelAxes = "published"):
        super().__init__()
        num_blocks = num_recursive_blocks or len(recursive_streams)
        self.block_of = {stream: turn % num_blocks for turn, stream in enumerate(sorted(recursive_streams))}
        self.heads = nn.ModuleList(extract(channels, features_2d) for _ in range(NUM_FRAMES))
        self.blocks = nn.ModuleList(Recursive(residual_2d(features_2d), n_2d - 1) for _ in range(num_blocks))
        if n_2d == 1:
            self.blocks.requires_grad_(False)  # never applied, so no rank may wait for their gradients
        self.enlarge = nn.ModuleList(enlarge(features_2d, channels) for _ in range(NUM_FRAMES))
        f = FEATURES_3D
        self.enter_3d = enter_3d(channels, f, axes)
        self.block_3d_a = Recursive(residual_3d(f), n_3d)
        self.between = _plain(f, 2)
        self.block_3d_b = Recursive(residual_3d(f), n_3d)
        self.after = _plain(f, 3)
        self.leave_3d = leave_3d(f, axes)
        self.last = Conv2dToFew(32, channels, 5, padding=2)

    def forward(self, lr: Tensor) -> Tensor:
        """Map (B, C, 5, h, w) to (B, C, 2h - 4, 2w - 4)."""
        maps = torch.stack([self.frame_map(lr, position) for position in range(NUM_FRAMES)], dim=2)
        volume = self.between(self.block_3d_a(self.enter_3d(maps)))
        volume = self.leave_3d(self.after(self.block_3d_b(volume)))
        return self.last(volume[:, :, 0])

    def frame_map(self, lr: Tensor, position: int) -> Tensor:
        """Return the map that its 2D stream makes of one frame: (B, C, 5, h, w) to (B, C, 2h, 2w)."""
        features = self.heads[position](lr[:, :, position])
        if position in self.block_of:
            features = self.blocks[self.block_of[position]](features)
        return F.relu(self.enlarge[position](features))

    def keep_alive(self, level: float) -> None:
        """Lift the maps of the five frames to `level`; below zero, the ReLU behind them would stop all learning."""
        for stream in self.enlarge:
            nn.init.constant_(stream[-1].bias, level)


def _plain(features: int, num_layers: int) -> nn.Sequential:
    layers = [(Conv3d(features, features, 3, padding=1), ReLU()) for _ in range(num_layers)]
    return nn.Sequential(*(module for pair in layers for module in pair))
