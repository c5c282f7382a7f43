"""Delta: a small network that passes frames near the centre through more recursion, without more parameters.

It is reconstructed from the paper's text and its parameter count, 83,702; docs/models.md says what is certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc_vsr.models.blocks import Conv2dToFew, Recursive, enlarge, enter_3d, extract, leave_3d, residual_3d
from hpc_vsr.models.core import Core
from hpc_vsr.models.settings import KernelAxes

NUM_FRAMES = 5
FEATURES_2D, FEATURES_3D = 8, 12


class Delta(Core):
    """Network from five LR frames to the centre frame at twice the size, less two pixels a side.

    Parameters
    ----------
    channels : int
        Channels of a frame; 1 gives the published network.
    n_2d, n_3d : int
        Depth of the 2D and of the 3D recursion; depth adds no parameters.
    depth : {"centre", "outer"}
        Which frames pass through all of the 2D recursion: the centre one, or the first and the last.
    axes : {"published", "temporal"}
        Orientation of the kernels of the 3D part.
    extra_channels : int
        Input channels that are not part of the picture, such as those of a flow.
    """

    has_first_stage = True

    def __init__(self, channels: int = 1, n_2d: int = 5, n_3d: int = 5, depth: Literal["centre", "outer"] = "centre",
                 axes: KernelAxes = "published", extra_channels: int = 0):
        super().__init__()
        self.depth = depth
        self.heads = nn.ModuleList(extract(channels + extra_channels, FEATURES_2D) for _ in range(NUM_FRAMES))
        self.block = Recursive(nn.Conv2d(FEATURES_2D, FEATURES_2D, 3, padding=1), n_2d)
        self.enlarge = enlarge(FEATURES_2D, channels)
        self.enter_3d = enter_3d(channels, FEATURES_3D, axes)
        self.block_3d = Recursive(residual_3d(FEATURES_3D), n_3d)
        self.leave_3d = leave_3d(FEATURES_3D, axes)
        self.last = Conv2dToFew(32, channels, 5, padding=2)

    def forward(self, lr: Tensor) -> Tensor:
        """Map (B, C, 5, h, w) to (B, C, 2h - 4, 2w - 4)."""
        maps = self._frame_maps(lr, range(NUM_FRAMES))
        volume = self.leave_3d(self.block_3d(self.enter_3d(maps)))
        return self.last(volume[:, :, 0])

    def frame_map(self, lr: Tensor, position: int) -> Tensor:
        """Return the 2D part's map of one frame: (B, C, 5, h, w) to (B, C, 2h, 2w)."""
        return self._frame_maps(lr, [position])[:, :, 0]

    def _frame_maps(self, lr: Tensor, positions: Sequence[int]) -> Tensor:
        """Map (B, C, 5, h, w) to (B, C, positions, 2h, 2w); positions share a batch where they share layers."""
        features = {position: self.heads[position](lr[:, :, position]) for position in positions}
        for turn in range(max(map(self._num_blocks, positions))):
            deeper = [position for position in positions if self._num_blocks(position) > turn]
            out = self.block(torch.cat([features[position] for position in deeper]))
            features.update(zip(deeper, out.chunk(len(deeper)), strict=True))
        maps = F.relu(self.enlarge(torch.cat([features[position] for position in positions])))
        return maps.unflatten(0, (len(positions), -1)).permute(1, 2, 0, 3, 4)

    def keep_alive(self, level: float) -> None:
        """Lift the maps of the five frames to `level`; below zero, the ReLU behind them would stop all learning."""
        nn.init.constant_(self.enlarge[-1].bias, level)

    def _num_blocks(self, position: int) -> int:
        """Return how often a frame passes through the 2D recursion."""
        offset = abs(position - NUM_FRAMES // 2)
        return 2 - offset if self.depth == "centre" else offset
