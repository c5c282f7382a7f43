"""Loads the network of an upscaling on the device of each rank, in one precision for all."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch

from hpc_vsr.models.precision import device_name, warn_of_bf16
from hpc_vsr.system.gpus import own_device
from hpc_vsr.system.mpi import ranks_on_node
from hpc_vsr.upscale.bundled import FOLDER, PURPOSE
from hpc_vsr.upscale.settings import UpscaleSettings
from hpc_vsr.upscale.upscaler import Upscaler, load


def load_network(settings: UpscaleSettings, comm: Any, local_rank: int) -> Upscaler:
    """Return the network on this rank's device; all ranks compute in the precision that the first one chooses."""
    neighbours, upscaler, choice = ranks_on_node(comm), None, None
    if neighbours > 1 and "OMP_NUM_THREADS" not in os.environ:  # else each rank would take all cores of the node
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // neighbours))
    if comm.rank == 0:
        if settings.run is None:
            print(f"no --run: takes {FOLDER.name}, which comes with hpc-vsr ({PURPOSE})", file=sys.stderr)
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
