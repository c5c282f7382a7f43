"""The optimiser steps of a training, on all ranks together: learning rate, gradients, Adam, and averaged weights."""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hpc_vsr.data.patches import Patch
from hpc_vsr.experiment.settings import TrainSettings
from hpc_vsr.models.network import Network
from hpc_vsr.models.precision import autocast
from hpc_vsr.runs.state import load_weights
from hpc_vsr.system.errors import Failed, InputError
from hpc_vsr.system.ranks import Ranks
from hpc_vsr.training.objective import Objective

MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's names
# DDP's option, which later versions of torch call by another name
EXCHANGE_OF_BUFFERS = next(name for name in ("forward_sync_buffers", "broadcast_buffers")
                           if name in inspect.signature(DistributedDataParallel).parameters)
MAX_BAD_STEPS = 10  # consecutive steps whose gradient is not finite
SCALER_SEARCH = 30  # so many more in fp16, whose scaler halves its factor until the gradient is finite


class Taken:
    """A step that was taken; its figures come to the CPU while the device goes on.

    Parameters
    ----------
    step : int
        Number of the step, from 1.
    loss, norm : Tensor
        This rank's loss and the norm of the gradient, scalars on the device.
    """

    def __init__(self, step: int, loss: Tensor, norm: Tensor):
        self.step = step
        figures = torch.stack([loss.float(), norm.float()])
        self._arrived = torch.cuda.Event() if figures.is_cuda else None
        self._figures = figures.to("cpu", non_blocking=True)  # from a GPU into pinned memory
        if self._arrived is not None:
            self._arrived.record()

    def figures(self) -> tuple[float, bool]:
        """Return the loss and whether the gradient was finite, once they have arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        loss, norm = self._figures.tolist()
        return loss, math.isfinite(norm)


class Optimisation:
    """A network, its optimiser and the moving average of its weights.

    Attributes
    ----------
    step : int
        Steps taken.
    bad_steps, skipped : int
        Steps without an update, because the gradient was not finite: since the last update, and in all, as far as the
        steps have been read.
    """

    def __init__(self, network: Network, settings: TrainSettings, ranks: Ranks, where: Path):
        self.where = where  # the run folder, for error messages
        self.network, self.settings, self.ranks = network, settings, ranks
        self.average = MovingAverage(network, settings.ema_decay)
        self.optimiser = build_adam(network, settings.lr, fused=ranks.device.type == "cuda")
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=settings.precision == "fp16")
        self.objective = Objective(network, settings.flow_weight)
        self.step = self.bad_steps = self.skipped = 0
        self.joined: nn.Module = self.objective

    @property
    def in_first_stage(self) -> bool:
        return self.step < self.settings.first_stage_steps

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return self.optimiser.param_groups[0]["lr"]

    def state(self) -> dict[str, Any]:
        """Return the part of a checkpoint that `restore` reads, but for the numbers of steps."""
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(), "rng": torch.get_rng_state()}

    def restore(self, state: dict[str, Any], where: str) -> None:
        """Continue from a checkpoint; raise `InputError`, which names the file, if it does not fit or is damaged."""
        load_weights(self.network, state["network"], where)
        load_weights(self.average.network, state["weights"], where)
        restore_adam(self.optimiser, state["optimiser"], where)
        try:
            self.scaler.load_state_dict(state["scaler"])
            torch.set_rng_state(state["rng"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{where}: is damaged ({error}); delete it, and the training continues from the one before"
                             ) from None
        self.step, self.bad_steps, self.skipped = state["step"], state["bad_steps"], state.get("skipped", 0)

    def join_ranks(self) -> None:
        """Choose the part to train now, the whole network or one of its two stages, and join it over all ranks.

        Joined ranks average their gradients. The buffers are filters that never change, so ranks do not exchange them.
        A single rank has nothing to exchange.
        """
        if self.settings.first_stage_steps:
            self.network.requires_grad_(not self.in_first_stage)
            self.network.core.first_stage.requires_grad_(self.in_first_stage)
        if self.ranks.world_size > 1:
            self.joined = DistributedDataParallel(self.objective, gradient_as_bucket_view=True,
                                                  **{EXCHANGE_OF_BUFFERS: False})

    def take_step(self, patch: Patch) -> Taken:
        """Take one step; skip the update if any rank's gradient is not finite.

        A GPU may still be computing when this returns. `read` waits for what it has found.
        """
        settings = self.settings
        # freeze the first stage when its steps are over
        if settings.first_stage_steps and self.step == settings.first_stage_steps:
            self.join_ranks()
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * self._learning_rate()
        # gradients, averaged over the ranks; unscaled, so that they can be clipped and checked
        value = self._add_gradients(patch)
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip_norm or float("inf"))
        # update, unless the gradient is not finite; all ranks agree on the norm, because DDP has averaged the gradients
        self._update(torch.isfinite(norm))
        self.scaler.update()
        self.step += 1
        self.average.update(self.network, self.step)
        return Taken(self.step, value, norm)

    def _update(self, is_finite: Tensor) -> None:
        """Let Adam change the weights, unless the gradient is not finite."""
        if not self.optimiser.defaults["fused"]:
            if is_finite:
                self.scaler.step(self.optimiser)
            return
        if self.scaler.is_enabled():  # it hands on what it has found itself
            self.scaler.step(self.optimiser)
            return
        # decided where it is computed, so that nothing waits for it
        self.optimiser.found_inf, self.optimiser.grad_scale = 1 - is_finite.float(), None
        self.optimiser.step()
        del self.optimiser.found_inf, self.optimiser.grad_scale

    def read(self, taken: Taken) -> float:
        """Return this rank's loss of a step; steps are read in their order.

        Raises
        ------
        Failed
            If too many steps in a row had no update.
        """
        loss, is_finite = taken.figures()
        if is_finite:
            self.bad_steps = 0
            return loss
        self.bad_steps, self.skipped = self.bad_steps + 1, self.skipped + 1
        if self.bad_steps == MAX_BAD_STEPS + SCALER_SEARCH * self.scaler.is_enabled():
            raise Failed(f"{self.where}: the gradient was not finite in {self.bad_steps} steps in a row up to "
                         f"step {taken.step}, whose updates were left out; lower train.lr or use train.precision "
                         "fp32 or bf16; the last checkpoint stays")
        return loss

    def _add_gradients(self, patch: Patch) -> Tensor:
        """Compute the gradients of the batch, one micro-batch after the other, and return this rank's loss, a scalar.

        Ranks exchange gradients only at the last micro-batch.
        """
        settings, total = self.settings, torch.zeros((), device=self.ranks.device)
        kind = "mse" if self.step >= settings.mse_from * settings.steps else settings.loss
        self.optimiser.zero_grad(set_to_none=True)
        parts = list(zip(patch.lr.chunk(settings.micro_batches), patch.hr.chunk(settings.micro_batches), strict=True))
        for number, (lr, hr) in enumerate(parts, 1):
            apart = number < len(parts) and self.ranks.world_size > 1
            with self.joined.no_sync() if apart else contextlib.nullcontext():
                with autocast(self.ranks.device, settings.precision):
                    loss = self.joined(lr, hr, kind, self.in_first_stage) / len(parts)
                self.scaler.scale(loss).backward()
            total = total + loss.detach()
        return total

    def _learning_rate(self) -> float:
        """Return the learning rate of the current step; each stage has its own warm-up and cosine."""
        settings = self.settings
        start, stop = (0, settings.first_stage_steps) if self.in_first_stage else (settings.first_stage_steps,
                                                                                   settings.steps)
        return learning_rate(self.step - start, stop - start, settings.lr, settings.warmup_steps, settings.final_lr)


def learning_rate(step: int, num_steps: int, peak: float, warmup: int, final_fraction: float) -> float:
    """Return the learning rate of a step, 0..num_steps-1.

    It grows linearly to `peak` over `warmup` steps and then follows a cosine down to `final_fraction` of the peak.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    return peak * (final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress)))


def build_adam(network: Network, lr: float, fused: bool = False) -> torch.optim.Adam:
    """Return Adam for a network; the ``rate`` of a group of weights is the fraction of the learning rate that it gets.

    Behind a residual path the last layer gets the fraction that its network needs (`Core.last_rate`). `fused` updates
    all weights by one kernel: on GPUs; on a CPU it is slower.
    """
    last = list(network.core.last.parameters())
    others = [weight for weight in network.parameters() if all(weight is not other for other in last)]
    last_rate = network.core.last_rate if network.skip is not None else 1.0
    return torch.optim.Adam([{"params": others, "rate": 1.0}, {"params": last, "rate": last_rate}], lr=lr,
                            fused=fused)


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
