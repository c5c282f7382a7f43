"""Ranks of the training. Any launcher that sets RANK, WORLD_SIZE, LOCAL_RANK and MASTER_* can start them."""

from __future__ import annotations

import contextlib
import datetime
import functools
import gc
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from hpc_vsr.system.config import Device
from hpc_vsr.system.errors import Failed, InputError, call_on_main, raise_together
from hpc_vsr.system.gpus import check_job_gpus, check_placements, choose_device, own_device, placement, shares_gpu
from hpc_vsr.system.memory import peak_memory


@dataclass(frozen=True)
class Ranks:
    """The position of this process among those that train together.

    Attributes
    ----------
    rank, world_size : int
    device : torch.device
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def per_node(self) -> int:
        """Number of ranks on this node."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.world_size))

    @property
    def num_threads(self) -> int:
        """Cores of this rank: SLURM's cores of a task, else OMP_NUM_THREADS, else its share of the task or machine."""
        by_srun = os.environ.get("SLURM_STEP_NUM_TASKS", "1") == str(self.world_size)  # each rank is a task of its own
        given = (by_srun and os.environ.get("SLURM_CPUS_PER_TASK")) or os.environ.get("OMP_NUM_THREADS", "")
        by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ and given == "1"  # torchrun's default, not the user's choice
        if given.isdecimal() and int(given) > 0 and not by_torchrun:
            return int(given)
        return max(1, min(len(os.sched_getaffinity(0)), _cores_of_task()) // self.per_node)

    def peak_memory(self) -> int:
        """Return the peak memory in bytes: of the tensors on a GPU, or of this process on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return peak_memory()

    def sum(self, values: list[float]) -> list[float]:
        """Return the sums of a few float64 numbers over all ranks, the same on each rank."""
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def on_main(self, function: Callable[[], Any]) -> Any:
        """Call `function` on the main rank and return its value on every rank.

        Its `InputError` ends every rank and is printed once.
        """

        def broadcast(value: Any) -> Any:
            box = [value]
            dist.broadcast_object_list(box)
            return box[0]

        return call_on_main(function, self.is_main, broadcast)

    def on_all(self, function: Callable[[], None]) -> None:
        """Call `function` on every rank; an `InputError` on any rank ends all ranks and is printed once."""
        message = None
        try:
            function()
        except InputError as error:
            message = str(error)
        messages = self.gather(message)
        first = next((message for message in messages if message is not None), None)
        if first is not None:
            raise_together(first, self.is_main)

    def gather(self, value: Any) -> list:
        """Return the values of all ranks, on every rank."""
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        dist.barrier()


@contextlib.contextmanager
def join_ranks(device: Device) -> Iterator[Ranks]:
    """Join the process group, with gloo on CPUs and NCCL on GPUs; a single process is a group of one, without NCCL.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        auto takes a GPU if there is one: number LOCAL_RANK modulo the number of visible GPUs.

    Raises
    ------
    InputError
        If the settings or the job ask for a GPU and torch sees none, or if two ranks would share a GPU.
    """
    # without RANK, each task of a launcher would be a training of its own
    for variable in ("SLURM_STEP_NUM_TASKS", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"):
        if int(os.environ.get(variable, 1)) > 1 and "RANK" not in os.environ:
            raise InputError(f"{os.environ[variable]} tasks were started ({variable}) but RANK is not set, so each "
                             "would train by itself; under srun use 'python -m hpc_vsr job train', else "
                             "'python -m hpc_vsr.launch' or torchrun, or set RANK, WORLD_SIZE, LOCAL_RANK and MASTER_*")
    rank, world_size = _read_number("RANK", 0), number_of_ranks()
    if rank >= max(1, world_size):
        raise InputError(f"RANK: is {rank} and WORLD_SIZE is {world_size}, but ranks are counted from 0")
    # the device decides between gloo and NCCL
    chosen = choose_device(device, _read_number("LOCAL_RANK", rank))
    check_job_gpus(device, chosen, "train.device")
    if world_size == 1:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    else:
        _join_process_group(backend_of(chosen), rank, world_size)
    ranks = Ranks(rank, world_size, own_device(chosen))
    # check that the ranks' GPUs suit each other; then the training runs in the caller's block
    try:
        ranks.on_all(functools.partial(check_placements, ranks.gather(placement(chosen))))
        yield ranks
    except RuntimeError as error:  # what gloo and NCCL raise
        if world_size == 1 or not re.search(r"gloo|nccl|Connection (closed|reset)|timed? ?out", str(error), re.I):
            raise
        raise Failed(f"rank {rank} of {world_size}: another rank has ended, or has not answered for "
                     f"{_rank_timeout().total_seconds():.0f} s (HPC_VSR_PATIENCE): {str(error).splitlines()[0]}; see "
                     "its last lines; the same command continues from the last checkpoint") from None
    finally:
        gc.collect()  # a DistributedDataParallel that is still alive keeps the group, and its threads abort at exit
        dist.destroy_process_group()


def backend_of(device: torch.device) -> str:
    """Return the backends that join several ranks: gloo for tensors on the CPU, NCCL if each rank has its own GPU.

    NCCL is told to end a wait with an exception. Otherwise its watchdog would abort a rank that has lost another one,
    without a line that says why.
    """
    if device.type == "cpu" or shares_gpu():
        return "gloo"
    os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")
    return "cpu:gloo,cuda:nccl"


def number_of_ranks() -> int:
    """Return the number of processes that train together, from WORLD_SIZE."""
    return _read_number("WORLD_SIZE", 1)


def _cores_of_task() -> int:
    """Return the cores that SLURM gives the task in which torchrun started its ranks; many if it does not say.

    Not every cluster binds a task to its cores, so that it may see those of other jobs. A script that starts torchrun
    without srun has all of its job's cores on the node.
    """
    variable = "SLURM_CPUS_PER_TASK" if "SLURM_STEP_NUM_TASKS" in os.environ else "SLURM_CPUS_ON_NODE"
    given = os.environ.get(variable, "")
    return int(given) if given.isdecimal() and int(given) > 0 else sys.maxsize


def _read_number(variable: str, default: int) -> int:
    given = os.environ.get(variable, str(default))
    if not given.isdecimal():
        raise InputError(f"{variable}: must be a whole number, found {given!r}")
    return int(given)


def _join_process_group(backend: str, rank: int, world_size: int) -> None:
    try:
        dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=_rank_timeout())
    except ValueError as error:
        raise InputError(f"MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE: {error}") from None
    except RuntimeError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise Failed(f"rank {rank} of {world_size}: cannot join the others at {where} ({str(error).splitlines()[0]}); "
                     "see their last lines; if another job uses that port, choose another MASTER_PORT") from None


def _rank_timeout() -> datetime.timedelta:
    """Return the time that a rank waits for another: one rank may save that long, or hang that long unnoticed."""
    given = os.environ.get("HPC_VSR_PATIENCE", "600")
    if not given.isdecimal() or not 0 < int(given) <= 86400:
        raise InputError(f"HPC_VSR_PATIENCE: must be 1 to 86400 seconds, found {given!r}")
    return datetime.timedelta(seconds=int(given))
