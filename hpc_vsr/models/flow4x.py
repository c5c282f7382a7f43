"""The scheme that the paper proposes for 4 times: enlarge every frame, find its motion, join frames and flow in 3D.

The paper describes it but did not build it; the flow network is ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc_vsr.models.blocks import in_full
from hpc_vsr.models.core import Core
from hpc_vsr.models.delta import NUM_FRAMES, Delta
from hpc_vsr.models.flow import FlowPyramid, photometric_error
from hpc_vsr.models.previous import FrameNetwork
from hpc_vsr.models.settings import KernelAxes

CENTRE = NUM_FRAMES // 2
TRIM = 2  # 4x pixels cut at each side besides the two that the 3D part loses: one LR pixel in all
FLOW_UNIT = 0.1  # scales a flow of ten pixels to the value range of the network


class Flow4x(Core):
    """Network from five LR frames to the centre frame at four times the size, less one LR pixel a side.

    The 2D front is the first stage of `Previous`. The 2D and 3D back is `Delta` with two more input channels.

    Parameters
    ----------
    channels : int
        Channels of a frame.
    n_2d, n_3d : int
        Depth of the recursions of the back.
    axes : {"published", "temporal"}
        Orientation of the kernels of the 3D part.
    residual : bool
        Whether the front's output is added to the bicubically enlarged frame.
    """

    has_flow = True
    scale = 4

    def __init__(self, channels: int = 1, n_2d: int = 5, n_3d: int = 5, axes: KernelAxes = "published",
                 residual: bool = True):
        super().__init__()
        self.residual = residual
        self.front = FrameNetwork(channels)
        self.flow = FlowPyramid(channels)
        self.back = Delta(channels, n_2d, n_3d, axes=axes, extra_channels=2)

    @property
    def last(self) -> nn.Conv2d:
        return self.back.last

    def forward(self, lr: Tensor) -> Tensor:
        """Map (B, C, 5, h, w) to (B, C, 4h - 8, 4w - 8)."""
        return self._join(*self.move(lr))

    def with_warp_error(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output, and how far the warped frames are from the centre frame; see `photometric_error`."""
        frames, pyramids = self.move(lr)
        # detached: the flow must learn to follow the frames, not the frames to stand still
        fixed = [in_full(frame.detach()) for frame in frames]
        errors = [photometric_error(fixed[CENTRE], fixed[position], pyramid) for position, pyramid in pyramids.items()]
        return self._join(frames, pyramids), sum(errors) / len(errors)

    def move(self, lr: Tensor) -> tuple[list[Tensor], dict[int, list[Tensor]]]:
        """Return the enlarged frames and their flows.

        The five frames have twice the size, (B, C, 2h, 2w). The flows are {position: flow from the centre to it at all
        levels}.
        """
        frames = [self.frame_map(lr, position) for position in range(NUM_FRAMES)]
        return frames, {position: self.flow(frames[CENTRE], frame) for position, frame in enumerate(frames)
                        if position != CENTRE}

    def frame_map(self, lr: Tensor, position: int) -> Tensor:
        """Return the front's map of one frame: (B, C, 5, h, w) to (B, C, 2h, 2w)."""
        frame = lr[:, :, position]
        enlarged = self.front(frame)
        if self.residual:
            enlarged = enlarged + F.interpolate(frame, scale_factor=2, mode="bicubic", align_corners=False)
        return enlarged

    def keep_alive(self, level: float) -> None:
        """Start the flow at rest and the front at its residual path, and keep the maps of the back above zero."""
        self.back.keep_alive(level)
        nn.init.zeros_(self.flow.refine[-1].weight)
        if self.residual:
            nn.init.zeros_(self.front.enlarge[-1].weight)

    def _join(self, frames: list[Tensor], pyramids: dict[int, list[Tensor]]) -> Tensor:
        still = frames[CENTRE].new_zeros(len(frames[CENTRE]), 2, *frames[CENTRE].shape[-2:])
        flows = [pyramids[position][-1] if position in pyramids else still for position in range(NUM_FRAMES)]
        stacked = [torch.cat([frame, FLOW_UNIT * flow], dim=1) for frame, flow in zip(frames, flows, strict=True)]
        return self.back(torch.stack(stacked, dim=2))[..., TRIM:-TRIM, TRIM:-TRIM]
