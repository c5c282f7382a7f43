"""The GPU that a process computes on: the ones that it may use, the one that it takes, and the ones that it refuses."""

from __future__ import annotations

import os
import re
import socket
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from hpc_vsr.system.config import Device
from hpc_vsr.system.errors import InputError

VARIABLE = "CUDA_VISIBLE_DEVICES"
SHARE = "HPC_VSR_SHARE_GPU"  # 1: several ranks may train on the same GPU, joined by gloo
MIG = "MIG"  # in the names of slices of a GPU, and at the beginning of their ids
FULL = "ieee"  # torch's name for float32 that is not rounded to TF32
CU126 = "pip install torch --index-url https://download.pytorch.org/whl/cu126"


@dataclass(frozen=True)
class Placed:
    """The place where a rank computes; two ranks with the same `host` and `identity` share a GPU.

    Attributes
    ----------
    host : str
    kind : {"cpu", "cuda"}
    name : str
        Such as "NVIDIA A100-SXM4-40GB"; the name of a slice of a GPU contains "MIG".
    identity : str
        The UUID of the GPU. Its number is not used, because it depends on the GPUs that a process sees.
    """

    host: str
    kind: str
    name: str = ""
    identity: str = ""


def choose_device(device: Device, local_rank: int = 0) -> torch.device:
    """Return the device of the `local_rank`-th process of this node, without changing anything.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        auto takes a GPU if this process sees one: number `local_rank` modulo their count.
    local_rank : int

    Raises
    ------
    InputError
        If "cuda" is asked for and no GPU is visible, or this torch has no code for the GPU.
    """
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        if device == "cuda":
            raise InputError(f'device: is "cuda", and no GPU is visible: {why_none()}, or use "auto" or "cpu"')
        return torch.device("cpu")
    chosen = torch.device("cuda", local_rank % torch.cuda.device_count())
    check_code_for(chosen)
    return chosen


def own_device(device: torch.device) -> torch.device:
    """Make a GPU the current one of this process and turn TF32 off; only commands do this, not the library."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        _set_rounding((FULL, FULL))
    return device


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 convolutions and products on a GPU without TF32 rounding; the caller's settings come back."""
    before = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    _set_rounding((FULL, FULL))
    try:
        yield
    finally:
        _set_rounding(before)


def _set_rounding(of: tuple[str, str]) -> None:
    """Set the rounding of convolutions and of products.

    The older `allow_tf32` cannot be read if the caller has used these names.
    """
    torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision = of


def given_ids() -> list[str] | None:
    """Return the entries of CUDA_VISIBLE_DEVICES (numbers, UUIDs or MIG slices) before the first invalid one.

    CUDA too stops reading at the first entry that names no GPU. Return None if the variable is not set.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        return None
    ids = []
    for entry in given.split(","):
        if not re.fullmatch(r"\d+|GPU-[\w-]+|MIG-[\w/-]+", entry.strip()):
            break
        ids.append(entry.strip())
    return ids


def why_none() -> str:
    """Return the reason why torch sees no GPU, and what to do."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install a torch with CUDA"
    ids = given_ids()
    if ids == []:
        return f"{VARIABLE}={os.environ[VARIABLE]!r} hides all GPUs; unset it, or name those to use"
    named = f" of {VARIABLE}={os.environ[VARIABLE]}" if ids else ""
    return (f"torch {torch.__version__} sees no GPU{named}; 'nvidia-smi' must show one and a driver for CUDA "
            f"{torch.version.cuda}")


def check_code_for(device: torch.device) -> None:
    """Raise `InputError` if this torch was built without code for the GPU; its first kernel would fail."""
    major, minor = torch.cuda.get_device_capability(device)
    built = torch.cuda.get_arch_list()
    if built and not has_code_for((major, minor), built):
        older = f"; for this GPU: {CU126}" if (major, minor) < (7, 5) else "; install a newer torch"
        raise InputError(f"device: {torch.cuda.get_device_name(device)} has compute capability {major}.{minor}, and "
                         f"torch {torch.__version__} has code for {', '.join(built)} only{older}")


def has_code_for(capability: tuple[int, int], built: Sequence[str]) -> bool:
    """Return whether one of ``sm_90``, ``sm_90a``, ``compute_90`` (as torch lists them) runs on a compute capability.

    Machine code runs on its own version and on later minor versions of the same major version; with an ``a`` only on
    its own version. PTX (``compute_``) runs on all later versions.
    """
    for entry in built:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", entry)
        if found is None:
            continue
        of = int(found[2]), int(found[3])
        if (of == capability if found[4] == "a" else of <= capability if found[1] == "compute" else
                of[0] == capability[0] and of[1] <= capability[1]):
            return True
    return False


def check_job_gpus(device: Device, chosen: torch.device, where: str) -> None:
    """Raise `InputError` if "auto" chose the CPU because torch sees none of the job's GPUs."""
    gpus = os.environ.get("SLURM_GPUS_ON_NODE", "0")
    if device == "auto" and chosen.type == "cpu" and gpus not in ("", "0"):
        raise InputError(f"{where}: the job has {gpus} GPU{'s' * (gpus != '1')} on this node, and {why_none()} "
                         f"('python -m hpc_vsr.doctor' looks), or set {where} to cpu")


def placement(device: torch.device) -> Placed:
    """Return where this process computes."""
    if device.type != "cuda":
        return Placed(socket.gethostname(), device.type)
    properties, ids = torch.cuda.get_device_properties(device), given_ids() or []
    is_slice = device.index < len(ids) and ids[device.index].startswith(MIG) and MIG not in properties.name
    return Placed(socket.gethostname(), device.type, properties.name + f" ({MIG})" * is_slice,
                  str(getattr(properties, "uuid", torch.cuda._parse_visible_devices()[device.index])))


def shares_gpu() -> bool:
    """Return whether ranks may share a GPU, which HPC_VSR_SHARE_GPU=1 allows."""
    given = os.environ.get(SHARE, "0")
    if given not in ("0", "1"):
        raise InputError(f"{SHARE}: must be 0 or 1, found {given!r}")
    return given == "1"


def check_placements(ranks: Sequence[Placed]) -> None:
    """Raise `InputError` unless every rank has its own GPU, or all ranks compute on the CPU.

    NCCL, which joins ranks on GPUs, accepts neither two ranks on one GPU nor slices of a GPU (MIG).

    Parameters
    ----------
    ranks : sequence of Placed
        The places of rank 0, 1, and so on.
    """
    if len(ranks) == 1:
        return
    kinds = [one.kind for one in ranks]
    if len(set(kinds)) > 1:
        without, having = kinds.index("cpu"), kinds.index("cuda")
        raise InputError(f"rank {without} on {ranks[without].host} has no GPU and rank {having} on "
                         f"{ranks[having].host} has one; give each node its GPUs, or set train.device to cpu")
    if kinds[0] == "cpu" or shares_gpu():
        return
    for number, one in enumerate(ranks):
        if MIG in one.name:
            raise InputError(f"rank {number} on {one.host} has a slice of a GPU ({one.name}), and NCCL cannot join the "
                             "ranks of slices; train on one rank, or ask for whole GPUs")
    together: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, one in enumerate(ranks):
        together[one.host, one.identity].append(number)
    for (host, _), numbers in together.items():
        if len(numbers) > 1:
            on_host = sum(one.host == host for one in ranks)
            gpus = len({one.identity for one in ranks if one.host == host})
            raise InputError(f"ranks {' and '.join(map(str, numbers))} on {host} would share one GPU "
                             f"({ranks[numbers[0]].name}), and one rank drives one GPU: start {gpus} "
                             f"rank{'s' * (gpus > 1)} on a node instead of {on_host} (--ntasks-per-node, "
                             "--nproc-per-node, resources.ranks_per_node), or ask for more GPUs")


def ids_for_launch(wanted: int) -> str:
    """Return CUDA_VISIBLE_DEVICES for the ranks of a launch here: the first `wanted` GPUs that the launch may use.

    The choice of the user or of the batch system is kept: on a shared node GPU 0 may be someone else's.

    Returns
    -------
    str
        Empty if `wanted` is 0 or there is no GPU; the ranks then compute on the CPU.

    Raises
    ------
    InputError
        If there are GPUs, but fewer than `wanted`, or slices of GPUs (MIG) for several ranks.
    """
    count = torch.cuda.device_count() if wanted else 0
    if not count:
        return ""
    given = given_ids()
    if wanted > 1 and (MIG in torch.cuda.get_device_name(0) or any(one.startswith(MIG) for one in given or [])):
        raise InputError(f"resources.gpus_per_node: is {wanted}, and this launch may use slices of GPUs (MIG), which "
                         "NCCL cannot join; add --resources.gpus-per-node 1 --resources.ranks-per-node 1, or use whole "
                         "GPUs")
    if count < wanted:
        shown = f" ({VARIABLE}={os.environ[VARIABLE]})" if given else ""
        raise InputError(f"resources.gpus_per_node: is {wanted}, and this machine has {count} "
                         f"GPU{'s' * (count > 1)}{shown}; add --resources.gpus-per-node {count} "
                         f"--resources.ranks-per-node {count}")
    return ",".join((given or [str(number) for number in range(count)])[:wanted])


def ranks_on_gpu(processes: int) -> int:
    """Return the largest number of the `processes` on this node that share a GPU."""
    return -(-processes // max(1, torch.cuda.device_count()))
