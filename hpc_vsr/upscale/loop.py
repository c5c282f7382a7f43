"""Loads the network on this rank's device and upscales the input: a video, a folder of images or a field."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch

from hpc_vsr.models.precision import device_name, warn_of_bf16
from hpc_vsr.system.config import as_dict
from hpc_vsr.system.gpus import own_device
from hpc_vsr.system.mpi import on_main_rank, ranks_on_node
from hpc_vsr.upscale import field, images, video
from hpc_vsr.upscale.settings import UpscaleSettings
from hpc_vsr.upscale.upscaler import Upscaler, load


def load_network(settings: UpscaleSettings, comm: Any, local_rank: int) -> Upscaler:
    """Return the network on this rank's device; all ranks compute in the precision that the first one chooses."""
    neighbours, upscaler, choice = ranks_on_node(comm), None, None
    if neighbours > 1 and "OMP_NUM_THREADS" not in os.environ:  # else each rank would take all cores of the node
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // neighbours))
    if comm.rank == 0:
        upscaler = load(settings.run, settings.device, settings.precision, settings.tile, local_rank)
        choice = upscaler.choice
        print(choice, file=sys.stderr)
        warning = warn_of_bf16(choice, upscaler.trained.network, upscaler.channels, upscaler.device) \
            if settings.precision == "bf16" else ""
        if warning:
            print(warning, file=sys.stderr)
    choice = comm.bcast(choice)
    upscaler = upscaler or load(settings.run, settings.device, choice.precision, settings.tile, local_rank)
    own_device(upscaler.device)
    names = sorted(set(comm.allgather(device_name(upscaler.device))))
    if comm.rank == 0 and len(names) > 1:
        print(f"warning: the ranks compute on {' and '.join(names)}: the last digits of their frames may differ",
              file=sys.stderr)
    return upscaler


def format_plan(settings: UpscaleSettings, upscaler: Upscaler) -> str:
    """Return the settings and what would be done, as text for --dry-run."""
    lines = [f"{key} = {value}" for key, value in as_dict(settings).items() if value is not None]
    if _is_field(settings):
        plan = field.plan_field(settings, upscaler)
        lines.append(field.format_plan(settings, upscaler, plan.source, len(plan.frames)))
    elif settings.input.is_dir():
        source, names, _ = images.plan_images(settings, upscaler)
        lines.append(images.format_plan(settings, upscaler, source, len(names)))
    else:
        lines.append(video.format_plan(video.plan_video(settings, upscaler), settings, upscaler))
    return "\n".join(lines)


def _is_field(settings: UpscaleSettings) -> bool:
    """Return whether the input is a field; raise `InputError` if a setting does nothing for that kind of input."""
    is_one = settings.input.suffix.lower() in field.FIELD_SUFFIXES or settings.variable is not None
    if is_one:
        settings.refuse("a field", ("compare", "part", "codec", "quality", "segment"))
    elif settings.input.is_dir():
        settings.refuse("a folder of images", ("codec", "quality", "segment", "back_projection"))
    else:
        settings.refuse("a video", ("back_projection",))
    return is_one


def upscale(settings: UpscaleSettings, upscaler: Upscaler, comm: Any) -> bool:
    """Upscale the input, all ranks together, and return whether the output is complete."""
    if _is_field(settings):
        on_main_rank(comm, lambda: field.upscale_field(settings, upscaler))  # one rank writes one file
        return True
    if settings.input.is_dir():
        return images.upscale_images(settings, upscaler, comm)
    return video.upscale_video(settings, upscaler, comm)
