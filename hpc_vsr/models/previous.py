"""The earlier two-stage network: it enlarges each frame by itself, then joins five enlarged frames in 3D.

It has 10,577 parameters in 2D and 63,129 in 3D. The first stage is trained by itself and frozen before the second
(`train.first_stage_steps`), or both are trained together. The paper set out to improve on this network.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hpc_vsr.models.blocks import Conv2dToFew, Conv3d, ReLU, enlarge, enter_3d, extract, leave_3d
from hpc_vsr.models.core import Core
from hpc_vsr.models.settings import KernelAxes

FEATURES = 8


class FrameNetwork(nn.Module):
    """Network from one frame to twice its size: (B, C, h, w) to (B, C, 2h, 2w). 10,577 parameters for one channel."""

    def __init__(self, channels: int = 1):
        super().__init__()
        self.extract = extract(channels, FEATURES)
        self.map = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
        self.enlarge = enlarge(FEATURES, channels)

    def forward(self, frame: Tensor) -> Tensor:
        return self.enlarge(F.relu(self.map(self.extract(frame))))


class Previous(Core):
    """Network from five LR frames to the centre frame at twice the size, less two pixels a side.

    Parameters
    ----------
    channels : int
        Channels of a frame; 1 gives the published network.
    axes : {"published", "temporal"}
        Orientation of the kernels of the 3D part.
    """

    has_first_stage = True

    def __init__(self, channels: int = 1, axes: KernelAxes = "published"):
        super().__init__()
        self.first_stage = FrameNetwork(channels)
        self.enter_3d = enter_3d(channels, FEATURES, axes)
        self.map_3d = nn.Sequential(Conv3d(FEATURES, FEATURES, 3, padding=1), ReLU(),
                                    Conv3d(FEATURES, FEATURES, 3, padding=1), ReLU())
        self.leave_3d = leave_3d(FEATURES, axes)
        self.last = Conv2dToFew(32, channels, 3, padding=1)

    def forward(self, lr: Tensor) -> Tensor:
        """Map (B, C, 5, h, w) to (B, C, 2h - 4, 2w - 4)."""
        batch, _, num_frames = lr.shape[:3]
        maps = self.first_stage(lr.transpose(1, 2).flatten(0, 1))  # all frames in one batch
        maps = maps.unflatten(0, (batch, num_frames)).transpose(1, 2)
        volume = self.leave_3d(self.map_3d(self.enter_3d(maps)))
        return self.last(volume[:, :, 0])

    def frame_map(self, lr: Tensor, position: int) -> Tensor:
        """Return the first stage's map of one frame: (B, C, 5, h, w) to (B, C, 2h, 2w)."""
        return self.first_stage(lr[:, :, position])
