"""Finds out how much memory an upscaling takes, before it starts."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hpc_vsr.data.splits import WINDOW
from hpc_vsr.models.precision import autocast
from hpc_vsr.system.files import format_bytes
from hpc_vsr.system.gpus import ranks_on_gpu
from hpc_vsr.system.memory import free_memory, memory_of_gpu, peak_of_tensors, process_memory

if TYPE_CHECKING:
    from hpc_vsr.upscale.upscaler import Upscaler

# factors on the bytes of the tensors, for oneDNN and what malloc cannot reuse; measured: 1.9, and in tiles 3.3 in fp32
# and 2.1 in bf16
SCRATCH, TILED_SCRATCH = 2.0, {"fp32": 4.0}
TILED_SCRATCH_ELSE = 2.5
FRAMES_HELD = 24  # LR and enlarged frames in float32, held by decoder, windows and encoder
LEAST_BUSY = 0.75  # share of the cores
FRAMES_OF_WORKER = 2  # further ones for each worker


@dataclass(frozen=True)
class Needs:
    """Bytes of GPU or main memory that a process takes: `fixed`, and `each` for every worker."""

    fixed: int
    each: int

    def of(self, workers: int) -> int:
        return self.fixed + workers * self.each


def estimate_memory(upscaler: Upscaler, height: int, width: int) -> Needs:
    """Return the most memory that a process takes to enlarge frames of that LR size."""
    upscaler.find_reach(height, width)
    network, device, channels = upscaler.trained.network, upscaler.device, upscaler.channels

    # run the network on tensors without values
    def enlarge() -> None:
        with torch.inference_mode(), autocast(device, upscaler.precision):
            network.upscale(torch.empty(1, channels, WINDOW, height, width, device=device), upscaler.tile)
    peak = peak_of_tensors(enlarge)
    if device.type == "cuda":
        return Needs(memory_of_gpu(peak), 0)
    tiled = upscaler.uses_tiles(height, width)
    frame = 4 * channels * height * width * (1 + upscaler.scale**2)
    scratch = TILED_SCRATCH.get(upscaler.precision, TILED_SCRATCH_ELSE) if tiled else SCRATCH
    return Needs(process_memory() + FRAMES_HELD * frame, int(scratch * peak) + FRAMES_OF_WORKER * frame)


def choose_workers(upscaler: Upscaler, height: int, width: int, cores: int, processes: int, held: int) -> int:
    """Return how many windows a process computes at the same time: at most one for each core, and 1 on a GPU.

    All `processes` of the node together take at most half of the free memory; each holds `held` bytes besides.
    """
    if upscaler.device.type == "cuda" or cores == 1:
        return 1
    free, needs = free_memory(), estimate_memory(upscaler, height, width)
    most = cores if free is None else (free // (2 * processes) - held - needs.fixed) // needs.each
    # the most workers, with the same number of threads each, that leave no more than a quarter of the cores idle
    return next(count for count in range(max(1, min(cores, most)), 0, -1)
                if cores // count * count >= LEAST_BUSY * cores)


def state_memory(upscaler: Upscaler, height: int, width: int, processes: int = 1, held: int = 0) -> str:
    """Return a text such as 'up to 1.2 GB of memory'; print a warning on standard error if less is free.

    `held` is what the source takes of main memory for what it has read.
    """
    on_gpu = upscaler.device.type == "cuda"
    needed = upscaler.memory(height, width) + (0 if on_gpu else held)
    free = torch.cuda.mem_get_info(upscaler.device)[0] if on_gpu else free_memory()
    together = needed * (ranks_on_gpu(processes) if on_gpu else processes)  # for all ranks that share it
    what = "memory of a GPU" if on_gpu else "memory"
    if free is not None and together > free:
        print(f"warning: may take up to {format_bytes(together)} of {what}, and {format_bytes(free)} are "
              f"free; choose a smaller --tile{' or fewer ranks' * (processes > 1)}", file=sys.stderr)
    return f"up to {format_bytes(needed)} of {what}{' a rank' * (processes > 1)}"
