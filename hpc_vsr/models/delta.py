"""Delta: a small network in which frames near the centre pass through more recursion, at no more parameters.

Reconstructed from the report's text and its parameter count, 83,702; docs/models.md says what is certain.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from hpc_vsr.models.blocks import Conv3d, Recursive

NUM_FRAMES = 5
FEATURES_2D, FEATURES_3D = 8, 12


class Delta(nn.Module):
    """Five LR frames to the centre frame at twice the size, less two pixels a side.

    Parameters
    ----------
    channels : int
        Channels of a frame; 1 gives the published network.
    n_2d, n_3d : int
        Depth of the 2D and of the 3D recursion; it costs no parameters.
    depth : {"centre", "outer"}
        Which frames pass through all of the 2D recursion: the centre one, or the first and the last.
    """

    def __init__(self, channels: int = 1, n_2d: int = 5, n_3d: int = 5, depth: Literal["centre", "outer"] = "centre"):
        super().__init__()
        self.depth = depth
        self.heads = nn.ModuleList(_head(channels) for _ in range(NUM_FRAMES))
        self.block = Recursive(nn.Conv2d(FEATURES_2D, FEATURES_2D, 3, padding=1), n_2d)
        self.enlarge = nn.Sequential(
            nn.Conv2d(FEATURES_2D, 32, 1), nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, channels, 5, padding=2), nn.ReLU(),
        )
        f = FEATURES_3D
        self.enter_3d = nn.Sequential(
            Conv3d(channels, 32, (5, 5, 3), padding=(2, 2, 1)), nn.ReLU(),
            Conv3d(32, f, (1, 1, 3), padding=(0, 0, 1)), nn.ReLU(),
        )
        self.block_3d = Recursive(
            nn.Sequential(Conv3d(f, f, 3, padding=1), nn.ReLU(), Conv3d(f, f, 3, padding=1)), n_3d)
        self.leave_3d = nn.Sequential(
            Conv3d(f, 32, (1, 1, 3), padding=(0, 0, 1)), nn.ReLU(),
            Conv3d(32, 32, 3), nn.ReLU(),
            Conv3d(32, 32, 3), nn.ReLU(),
        )
        self.last = nn.Conv2d(32, channels, 5, padding=2)

    def forward(self, lr: Tensor) -> Tensor:
        """(B, C, 5, h, w) to (B, C, 2h - 4, 2w - 4)."""
        maps = []
        for position, head in enumerate(self.heads):
            features = head(lr[:, :, position])
            for _ in range(self._num_blocks(position)):
                features = self.block(features)
            maps.append(self.enlarge(features))
        volume = self.leave_3d(self.block_3d(self.enter_3d(torch.stack(maps, dim=2))))
        return self.last(volume[:, :, 0])

    def keep_alive(self) -> None:
        """Lift the maps that the five frames become above zero, where their one ReLU would stop all learning."""
        nn.init.constant_(self.enlarge[-2].bias, 0.5)

    def _num_blocks(self, position: int) -> int:
        offset = abs(position - NUM_FRAMES // 2)
        return 2 - offset if self.depth == "centre" else offset


def _head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 32, 5, padding=2), nn.ReLU(), nn.Conv2d(32, FEATURES_2D, 1), nn.ReLU())
