"""The objective that a training minimises: the loss of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hpc_vsr.experiment.settings import Loss
from hpc_vsr.models.blocks import in_full
from hpc_vsr.models.network import Network

CHARBONNIER_EPSILON = 1e-3  # in units of the value range


class Objective(nn.Module):
    """The training loss as a module, so that DistributedDataParallel can wrap it.

    Parameters
    ----------
    network : Network
    flow_weight : float
        Weight of the photometric error of the optical flow, for a network that has a flow.
    """

    def __init__(self, network: Network, flow_weight: float):
        super().__init__()
        self.network, self.flow_weight = network, flow_weight

    def forward(self, lr: Tensor, hr: Tensor, loss: Loss, first_stage: bool = False) -> Tensor:
        """Return the mean loss of a batch, a scalar, on values 0 to the network's value range; `hr` is 0..1.

        With `first_stage`, it is the loss of the 2D part's output for the centre frame.
        """
        unit = self.network.value_range
        if first_stage:
            return compute_loss(loss, self.network.first_stage(lr), hr, unit)
        if not self.network.has_flow:
            return compute_loss(loss, self.network(lr), hr, unit)
        sr, warp_error = self.network.with_warp_error(lr)
        return compute_loss(loss, sr, hr, unit) + self.flow_weight * unit * warp_error


def compute_loss(kind: Loss, sr: Tensor, hr: Tensor, unit: float = 1.0) -> Tensor:
    """Return the mean over the pixels of error^2 (mse) or sqrt(error^2 + 1e-6) (Charbonnier); values are 0..1.

    `unit` is the range in which the error is expressed: the paper's MSE is on 0..255. Where `hr` is NaN the error is 0.
    Such pixels count in the mean, so that every pixel has the same weight on every rank.
    """
    known = ~torch.isnan(hr)
    squared = torch.where(known, in_full(sr) - hr, 0.0) ** 2
    if kind == "mse":
        return unit**2 * squared.mean()
    distance = torch.sqrt(squared + CHARBONNIER_EPSILON**2)
    return unit * torch.where(known, distance, 0.0).mean()
