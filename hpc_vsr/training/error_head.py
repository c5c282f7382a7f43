"""Trains the head that predicts the error of a run's network, whose weights stay as they are.

The head learns the likelihood of the errors, as if they were Gaussian with the standard deviation that it predicts: Nix
and Weigend, "Estimating the mean and variance of the target probability distribution", 1994. It learns them on the
validation split, because a network errs less on the frames that it was trained on. One factor makes them right there in
the mean.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hpc_vsr.data.clips import Clips
from hpc_vsr.data.manifest import Manifest, check_shards
from hpc_vsr.data.patches import Patches, load_batches
from hpc_vsr.data.samples import choose_memory
from hpc_vsr.evaluation.evaluate import check_suits
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.metrics.image import PAPER_CROP
from hpc_vsr.models.error import ErrorHead
from hpc_vsr.models.filters import FilterBank
from hpc_vsr.models.network import Network
from hpc_vsr.models.wrap import wrapped
from hpc_vsr.runs.error_head import TrainedError, new_head, save_head
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import Trained, load_trained
from hpc_vsr.system.config import Device, from_dict
from hpc_vsr.system.errors import Failed, InputError
from hpc_vsr.system.gpus import choose_device, own_device
from hpc_vsr.system.lock import only_writer
from hpc_vsr.system.memory import keep_freed_memory
from hpc_vsr.system.progress import Progress
from hpc_vsr.training.terms import split_kind

LOCK = ".calibrate.lock"
PATCH_SIZE = 40  # LR pixels, for weights that were imported
LR = 2e-3
WARMUP = 0.05  # of the steps
CLIP_NORM = 1.0
VALIDATION_FRAMES = 48


def calibrate(run: RunFolder, manifest: Manifest, steps: int, device: Device) -> str:
    """Train the head of a run's network, write it into the run folder, and return a line that says so.

    Raises
    ------
    InputError
        If the run has no valid checkpoint, or its network was not trained on this data set.
    """
    keep_freed_memory()
    config = run.read_config()
    with only_writer(run.path, LOCK):
        trained = load_trained(run)
        check_suits(trained, manifest)
        if config["train"] is not None and trained.terms.fingerprint != manifest.fingerprint:
            raise InputError(f"{run.path}: was trained on another data set than {manifest.folder}; give the one that "
                             "it was trained on with --data")
        smallest = min(map(min, manifest.lr_sizes))
        settings = {"train": config["train"] or {"patch_size": min(PATCH_SIZE, smallest)}}
        experiment = from_dict(Experiment, {"data": str(manifest.folder), "model": config["model"], **settings},
                               str(run.config))
        check_shards(manifest, ("train", "val"))
        head = train_head(trained, experiment, manifest, steps, own_device(choose_device(device)))
        if not all(value.isfinite().all() for value in head.state_dict().values()):
            raise Failed(f"{run.path}: the training of its error head diverged; run it again with other --steps")
        save_head(run, trained, head)
    return f"{run.error_head}: {steps} steps on the validation split; evaluate the run to see how right it is"


def train_head(trained: Trained, experiment: Experiment, manifest: Manifest, steps: int, device: torch.device
               ) -> ErrorHead:
    """Return the head of a trained network.

    Parameters
    ----------
    trained : Trained
    experiment : Experiment
        How the network was trained: its patches, blurs and noise are those of the head.
    manifest : Manifest
        The data set that it was trained on.
    steps : int
    device : torch.device
    """
    settings = experiment.train
    network, head = trained.network.to(device), new_head(trained).to(device)
    memory = choose_memory(manifest, settings.resident, device, 1, experiment.model.align, len(settings.sigmas))
    frames = Clips(manifest, "val", memory, kind=split_kind(experiment))
    filters = FilterBank(network, trained.terms.blurs.filters) if trained.terms.has_blurs else None
    patches = Patches(frames, settings.patch_size, network.reach, settings.augment, settings.seed, settings.batch_size,
                      settings.camera_noise)
    optimiser = torch.optim.Adam(head.parameters(), LR)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step / steps))
    batches = load_batches(patches, 0, steps * settings.batch_size, settings.batch_size, 0, 1, 0, device)
    with Progress(steps, "calibrating", "step") as progress:
        for step, patch in enumerate(batches):
            if filters is not None:
                filters.choose(patches.level_of(step))
            loss = _loss(network, head, patch.lr, patch.hr)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), CLIP_NORM)
            optimiser.step()
            schedule.step()
            progress.advance(figures=f"loss {loss.item():.3f}")
    head.eval().requires_grad_(False)
    # the filters are those of the data set again
    own = trained.at(trained.terms.sigma if len(trained.terms.blurs.sigmas) > 1 else None) if filters else trained
    head.factor = _factor(TrainedError.of(own, head, ""), Clips(manifest, "val"), device)
    return head


def _rate(share: float) -> float:
    """Return the fraction of the learning rate after a share of the steps: a warm-up, and a cosine down to 0."""
    return min(1.0, share / WARMUP) * (1 + math.cos(math.pi * share)) / 2


def _loss(network: Network, head: ErrorHead, lr: Tensor, hr: Tensor) -> Tensor:
    """Return the mean negative logarithm of the likelihood of the errors in a batch, less a constant."""
    with torch.no_grad():
        sr, seen, made = network.with_core(lr)
        known = ~torch.isnan(hr)  # NaN where a field has a gap
        error = torch.where(known, sr - hr, 0.0).float()
    sigma = head(seen / network.value_range, made / network.value_range)
    likelihood = torch.log(sigma) + (error / sigma) ** 2 / 2
    return torch.where(known, likelihood, 0.0).sum() / known.sum().clamp(min=1)


def _factor(trained: TrainedError, clips: Clips, device: torch.device) -> Tensor:
    """Return (C, 1, 1) ratios of the errors on some frames of a split to the predicted ones, as root mean squares."""
    periodic, channels = clips.splits[0].manifest.periodic, trained.terms.channels
    networks = trained.base.network.to(device), trained.network.to(device)
    margins = [network.find_wrap(channels) if periodic else 0 for network in networks]
    actual, predicted = torch.zeros(2, channels, dtype=torch.float64)
    samples = clips.spread_evenly(VALIDATION_FRAMES)
    with torch.inference_mode():
        for number, centre in samples:
            split = clips.splits[number]
            window = split.window(centre).to(device)[None]
            hr = split.normalise(split.hr_frame(centre)).to(device)
            sr, sigma = (wrapped(network.upscale, window, margin, periodic)[0].float()
                         for network, margin in zip(networks, margins, strict=True))
            error, sigma = (values[..., PAPER_CROP:-PAPER_CROP, PAPER_CROP:-PAPER_CROP].double().cpu()
                            for values in (sr - hr, sigma))
            known = ~torch.isnan(error)
            actual += torch.where(known, error, 0.0).square().sum((1, 2))
            predicted += torch.where(known, sigma, 0.0).square().sum((1, 2))
    return (actual / predicted).sqrt().float().view(-1, 1, 1)
