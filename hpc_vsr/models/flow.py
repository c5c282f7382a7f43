"""A small learned optical flow: a coarse-to-fine pyramid that refines a displacement at each level.

It follows Ranjan and Black 2017 (SPyNet), with one set of weights for all levels and a few thousand parameters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc_vsr.models.blocks import in_full

FEATURES = 24
LEVELS = 4
CHARBONNIER_EPSILON = 1e-3
SMOOTHNESS = 0.01  # weight of the variation of the flow in the photometric error


class FlowPyramid(nn.Module):
    """Network that finds the displacement from one frame to another.

    Parameters
    ----------
    channels : int
        Channels of a frame.
    """

    def __init__(self, channels: int = 1):
        super().__init__()
        self.refine = nn.Sequential(
            nn.Conv2d(2 * channels + 2, FEATURES, 5, padding=2), nn.ReLU(),
            nn.Conv2d(FEATURES, FEATURES, 5, padding=2), nn.ReLU(),
            nn.Conv2d(FEATURES, 2, 5, padding=2),
        )

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Return the flow at every level of the pyramid, the finest last.

        Parameters
        ----------
        first, second : (B, C, H, W) Tensor
            Frames with values 0..1.

        Returns
        -------
        list of (B, 2, H / 2^k, W / 2^k) Tensor
            Displacement (x, y) in pixels of that level: ``second`` at a pixel plus its displacement is ``first`` there.
        """
        pyramid = [(first, second)]
        while len(pyramid) < LEVELS and min(pyramid[-1][0].shape[-2:]) >= 16:
            pyramid.append(tuple(F.avg_pool2d(frame, 2, ceil_mode=True) for frame in pyramid[-1]))
        flows: list[Tensor] = []
        for level_first, level_second in reversed(pyramid):
            size = level_first.shape[-2:]
            flow = (2 * F.interpolate(flows[-1], size=size, mode="bilinear", align_corners=False) if flows
                    else level_first.new_zeros(len(level_first), 2, *size))
            seen = torch.cat([level_first, warp(level_second, flow), flow], dim=1)
            flows.append(flow + self.refine(seen))
        return flows


def warp(frame: Tensor, flow: Tensor) -> Tensor:
    """Return `frame` read at each pixel plus its displacement: bilinear, replicated beyond the border.

    Parameters
    ----------
    frame : (B, C, H, W) Tensor
    flow : (B, 2, H, W) Tensor
        Displacement (x, y) in pixels.
    """
    height, width = frame.shape[-2:]
    flow = in_full(flow)
    columns = torch.arange(width, device=frame.device) + flow[:, 0]
    rows = torch.arange(height, device=frame.device)[:, None] + flow[:, 1]
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    return F.grid_sample(in_full(frame), grid, mode="bilinear", padding_mode="border", align_corners=False)


def photometric_error(first: Tensor, second: Tensor, flows: list[Tensor]) -> Tensor:
    """Return how much `first` and the warped `second` differ, plus the smoothness of the flow.

    The difference is Charbonnier's, mean over pixels and levels.
    """
    total = first.new_zeros(())
    for flow in reversed(flows):
        error = torch.sqrt((first - warp(second, flow)) ** 2 + CHARBONNIER_EPSILON**2).mean()
        variation = flow.diff(dim=-1).abs().mean() + flow.diff(dim=-2).abs().mean()
        total = total + error + SMOOTHNESS * variation
        first, second = (F.avg_pool2d(frame, 2, ceil_mode=True) for frame in (first, second))
    return total / len(flows)
