"""A machine with GPUs as torch shows it, on one that has none: what is seen of them, not what they compute."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from hpc_vsr.system import gpus

CODE = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]  # of torch 2.13 for CUDA 13
# How a job tells a process of its GPUs and ranks
OF_JOBS = ("SLURM_GPUS_ON_NODE", "SLURM_STEP_NUM_TASKS", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "RANK", "WORLD_SIZE",
           "LOCAL_RANK", gpus.SHARE, gpus.VARIABLE)
MIG = "MIG-5f0c3dd4-0000-0000-0000-000000000001"


def uuid(number: int) -> str:
    return f"GPU-00000000-0000-0000-0000-00000000000{number}"


def pretend_gpus(patch: pytest.MonkeyPatch, count: int, name: str = "NVIDIA A100-SXM4-40GB",
                 capability: tuple[int, int] = (8, 0), bf16: bool = True) -> None:
    """Torch sees those of `count` GPUs that CUDA_VISIBLE_DEVICES shows: by number, UUID or as a slice of one."""

    def visible() -> list[tuple[str, str]]:
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        known = {str(number): (uuid(number), name) for number in range(count)}
        known |= {uuid(number): (uuid(number), name) for number in range(count)}
        known[MIG] = (MIG, f"{name} MIG 1g.5gb")
        if given is None:
            return [known[str(number)] for number in range(count)]
        found = []
        for entry in given.split(","):
            if entry not in known:  # CUDA stops at the first that it does not know
                break
            found.append(known[entry])
        return found

    def properties(device) -> SimpleNamespace:
        identity, shown = visible()[device if isinstance(device, int) else torch.device(device).index or 0]
        return SimpleNamespace(name=shown, uuid=identity.removeprefix("GPU-"), total_memory=40 * 2**30)

    patch.setattr(torch.version, "cuda", "13.0")
    for function, answer in {
        "is_available": lambda: bool(visible()), "device_count": lambda: len(visible()),
        "get_device_properties": properties, "get_device_name": lambda device=0: properties(device).name,
        "get_device_capability": lambda device=0: capability, "get_arch_list": lambda: CODE,
        "is_bf16_supported": lambda including_emulation=True: bf16, "set_device": lambda device: None,
        "mem_get_info": lambda device=0: (30 * 2**30, 40 * 2**30),
    }.items():
        patch.setattr(torch.cuda, function, answer)
