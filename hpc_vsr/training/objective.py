"""The parts of an optimiser step: the objective, the learning rate and the moving average of the weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from hpc_vsr.experiment.settings import Loss
from hpc_vsr.models.blocks import in_full
from hpc_vsr.models.network import Network
from hpc_vsr.system.errors import InputError

CHARBONNIER_EPSILON = 1e-3  # in units of the value range
MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's names
LAST_LAYER_RATE = 0.1


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


def learning_rate(step: int, num_steps: int, peak: float, warmup: int, final_fraction: float) -> float:
    """Return the learning rate of a step, 0..num_steps-1.

    It grows linearly to `peak` over `warmup` steps and then follows a cosine down to `final_fraction` of the peak.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    return peak * (final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress)))


def build_adam(network: Network, lr: float) -> torch.optim.Adam:
    """Return Adam for a network; the ``rate`` of a group of weights is the fraction of the learning rate that it gets.

    With a residual path the last layer starts at zero and sums hundreds of maps of one sign. At the full rate its first
    steps overshoot, and the layers before it learn to be silent: the network is dead, and the result stays that of the
    residual path. So the last layer then gets a tenth (docs/results.md has the measurement).
    """
    last = list(network.core.last.parameters())
    others = [weight for weight in network.parameters() if all(weight is not other for other in last)]
    return torch.optim.Adam([{"params": others, "rate": 1.0},
                             {"params": last, "rate": LAST_LAYER_RATE if network.skip is not None else 1.0}], lr=lr)


def restore_adam(optimiser: torch.optim.Adam, saved: dict, where: str) -> None:
    """Restore the moments and steps of a saved state; raise `InputError` if they belong to other weights.

    Earlier versions saved one group of weights; their runs go on with one learning rate.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state = saved.get("state")
    for index, moments in (state if isinstance(state, dict) else {None: None}).items():
        right = (isinstance(index, int) and 0 <= index < len(parameters) and isinstance(moments, dict)
                 and all(isinstance(moments.get(name), Tensor) and moments[name].is_floating_point()
                         for name in (*MOMENTS, "step"))
                 and all(moments[name].shape == parameters[index].shape for name in MOMENTS)
                 and moments["step"].numel() == 1)
        if not right:
            raise InputError(f"{where}: its optimiser is of other weights, or damaged; delete that checkpoint, and the "
                             "training continues from the one before")
    groups, found = optimiser.state_dict()["param_groups"], saved.get("param_groups")
    begun = [group.get("rate") for group in found if isinstance(group, dict)] if isinstance(found, list) else []
    if begun != [group["rate"] for group in groups]:
        groups = [{**group, "rate": 1.0} for group in groups]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


class MovingAverage:
    """Exponential moving average of a network's weights; the averaged weights are validated and used.

    The decay grows with the steps, min(decay, (1 + step) / (10 + step)), so that the average forgets the start.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged, current = list(self.network.parameters()), list(network.parameters())
        torch._foreach_lerp_(averaged, current, 1 - decay)
