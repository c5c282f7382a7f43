"""The plan of a training for --dry-run: its steps, its precision and the memory that it needs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math

import torch

from hpc_vsr.data.manifest import Manifest, read_manifest
from hpc_vsr.data.samples import num_bytes
from hpc_vsr.data.splits import REACH, WINDOW
from hpc_vsr.experiment.checks import check_fit
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.models.blocks import as_on_gpu, count_parameters
from hpc_vsr.models.filters import FilterBank
from hpc_vsr.models.network import Network
from hpc_vsr.models.precision import autocast
from hpc_vsr.models.settings import TILE
from hpc_vsr.runs.trained import DataTerms
from hpc_vsr.system import files
from hpc_vsr.system.config import as_dict
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.gpus import choose_device
from hpc_vsr.system.memory import memory_of_gpu, peak_of_tensors, process_memory
from hpc_vsr.training.objective import Objective
from hpc_vsr.training.precision import settle_precision
from hpc_vsr.training.start import load_start
from hpc_vsr.training.tensorboard import check_installed

SCRATCH = 2.0  # factor on the bytes of the tensors, for oneDNN and what malloc cannot reuse; measured: 1.2 to 1.7
COPIES = 5  # of the parameters: themselves, their gradients, their averages and the two moments of Adam


def format_plan(experiment: Experiment, world_size: int = 1, on_gpus: bool = False) -> str:
    """Return the plan and its size as text; raise `InputError` if the settings do not fit the data.

    With `on_gpus` the ranks will have GPUs, even if this machine has none; otherwise this machine's devices count.
    """
    manifest = read_manifest(experiment.data)
    check_fit(experiment, manifest, world_size)
    check_installed(experiment.train.tensorboard)
    device = choose_device(experiment.train.device)
    on_gpus = experiment.train.device != "cpu" and (on_gpus or device.type == "cuda")
    resolved, lines = _settle_planned_precision(device, on_gpus, experiment, manifest)
    start = load_start(resolved, manifest)
    settings, network = resolved.train, DataTerms.of(manifest, 1e-3).build(experiment.model)
    if settings.sigmas:
        FilterBank(network, [(sigma, 1e-3) for sigma in settings.sigmas])  # its filters are as wide as the widest
    used = settings.num_frames - 2 * REACH if settings.num_frames else manifest.num_samples("train")
    samples = min(used, manifest.num_samples("train"))
    epochs = settings.steps * settings.batch_size / samples
    frames = num_bytes(manifest, "train", experiment.model.align, len(settings.sigmas))
    (height, width), *others = manifest.lr_sizes
    clips = f" of {len(manifest.clips)} clips" if manifest.is_collection else ""
    sizes = f" and {len(others)} other size{'s' * (len(others) > 1)}" if others else ""
    memory = memory_of_rank(resolved, network, manifest, world_size, on_gpus)
    return "\n".join([
        json.dumps(as_dict(experiment), indent=2),
        f"data     {manifest.folder}: {samples} training samples{clips} of {width}x{height} LR{sizes}, "
        f"{files.format_bytes(frames)} of frames",
        f"network  {experiment.model.name}, {count_parameters(network):,} parameters",
        *lines,
        *(f"start    {line}" for line in (start.lines if start else [])),
        f"steps    {settings.steps} of {settings.batch_size} samples: {epochs:.1f} epochs",
        f"memory   up to {files.format_bytes(memory)} {'of its GPU ' * on_gpus}a rank, with the frames kept in it "
        f"{files.format_bytes(memory + frames)}",
        f"run      {experiment.out}",
    ])


def _settle_planned_precision(device: torch.device, on_gpus: bool, experiment: Experiment, manifest: Manifest
                     ) -> tuple[Experiment, list[str]]:
    """Return the experiment with the precision that it would get on this device, or on GPUs, and lines to print."""
    if on_gpus and device.type == "cpu":
        settings = experiment.train
        if settings.precision != "auto":
            return experiment, [f"precision {settings.precision}: as asked for"]
        resolved = dataclasses.replace(experiment, train=dataclasses.replace(settings, precision="bf16"))
        return resolved, ["precision auto: bf16, or fp16 on GPUs without bf16"]
    try:
        resolved, _, lines = settle_precision(experiment, manifest, device)
    except InputError as error:
        return experiment, [f"warning: not on this machine: {error}"]
    return resolved, lines


def memory_of_rank(experiment: Experiment, network: Network, manifest: Manifest, world_size: int, on_gpu: bool = False
                   ) -> int:
    """Return the most bytes that a rank takes, of main memory or of its GPU, without the frames.

    A step and the validation of a frame run on tensors without values to find them.
    """
    settings, scale, channels = experiment.train, manifest.scale, len(manifest.channels)
    cpu, objective = torch.device("cpu"), Objective(network, settings.flow_weight)
    samples = settings.batch_size // (world_size * settings.micro_batches)
    largest = max(manifest.lr_sizes, key=math.prod)
    height, width = (settings.patch_size,) * 2 if settings.patch_size else largest

    def step() -> None:
        lr = torch.empty(samples, channels, WINDOW, height + 2 * network.reach, width + 2 * network.reach)
        hr = torch.empty(samples, channels, scale * (height - 2), scale * (width - 2))
        with autocast(cpu, settings.precision):
            objective(lr, hr, settings.loss).backward()

    def validation() -> None:
        with torch.inference_mode(), autocast(cpu, settings.precision):
            margin = network.find_wrap(channels) if manifest.periodic else 0
            size = [side + 2 * margin * (name in manifest.periodic)
                    for side, name in zip(largest, "yx", strict=True)]
            network.upscale(torch.empty(1, channels, WINDOW, *size))

    if manifest.periodic or max(map(max, manifest.lr_sizes)) > TILE:
        network.find_core_reach(channels)  # before: it needs values
    weights = COPIES * 4 * count_parameters(network)
    with as_on_gpu() if on_gpu else contextlib.nullcontext():
        tensors = max(peak_of_tensors(step), peak_of_tensors(validation))
    return memory_of_gpu(weights + tensors) if on_gpu else process_memory() + weights + int(SCRATCH * tensors)
