"""What SLURM is told of a job: its resources, and what is particular to a cluster (``slurm/sites/*.toml``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_vsr.config import check_finite, from_dict, read_toml
from hpc_vsr.errors import InputError

SIGNAL_DELAY_SECONDS = 120  # between SIGUSR2 and the time limit: room for a checkpoint


@dataclass(frozen=True)
class Resources:
    """What the training job asks for; the report asks for one rank of it, without a GPU.

    Attributes
    ----------
    nodes : int
        Number of nodes.
    ranks_per_node : int
        Processes on each node; one rank drives one GPU.
    cpus_per_rank : int
        Cores of each process.
    gpus_per_node : int
        GPUs on each node; 0 trains on the CPU.
    memory_gb : float
        Per node; 0 leaves it to the cluster.
    hours : float
        Time limit.
    report_hours : float
        Time limit of the report, which measures every run on the CPU.
    """

    nodes: int = 1
    ranks_per_node: int = 1
    cpus_per_rank: int = 1
    gpus_per_node: int = 0
    memory_gb: float = 0.0
    hours: float = 1.0
    report_hours: float = 1.0

    def __post_init__(self):
        check_finite(self, "resources")
        if min(self.nodes, self.ranks_per_node, self.cpus_per_rank) < 1 or self.gpus_per_node < 0 or \
                min(self.hours, self.report_hours) <= 0:
            raise InputError("resources: nodes, ranks_per_node and cpus_per_rank must be at least 1, hours and "
                             "report_hours above 0")
        if 0 < self.gpus_per_node < self.ranks_per_node:
            raise InputError(f"resources: {self.ranks_per_node} ranks on {self.gpus_per_node} GPUs a node; "
                             "one rank drives one GPU")


@dataclass(frozen=True)
class Queue:
    """Where SLURM runs a kind of job; what is not given is left out.

    Attributes
    ----------
    partition, account, qos, constraint : str
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None


@dataclass(frozen=True)
class Site:
    """What is particular to a cluster: slurm/sites/NAME.toml.

    Attributes
    ----------
    setup : list of str
        Shell lines before the work, such as `module load` or the activation of an environment.
    gpu, cpu : Queue
        For training, and for the report.
    """

    setup: tuple[str, ...] = ()
    gpu: Queue = dataclasses.field(default_factory=Queue)
    cpu: Queue = dataclasses.field(default_factory=Queue)


def read_site(path: Path | None) -> Site:
    """Settings of a cluster from a TOML file; the generic one if none is given."""
    if path is None:
        return Site()
    table = read_toml(path)
    setup = table.pop("setup", [])
    if not isinstance(setup, list) or not all(isinstance(line, str) for line in setup):
        raise InputError(f"{path}: setup: expected a list of shell lines in quotes, found {setup!r}")
    return dataclasses.replace(from_dict(Site, table, str(path)), setup=tuple(setup))


def train_parameters(run: str, resources: Resources, site: Site, max_parallel: int = 0) -> dict[str, Any]:
    """submitit's parameters of the training of a run on SLURM, or of an array of runs, `max_parallel` at a time."""
    parameters = {
        **_common_parameters(f"train-{run}", site.setup, resources.hours, site.gpu),
        "nodes": resources.nodes,
        "ntasks_per_node": resources.ranks_per_node,
        "cpus_per_task": resources.cpus_per_rank,
        "signal_delay_s": SIGNAL_DELAY_SECONDS,
        "srun_args": ["--kill-on-bad-exit=1", "--wait=60"],
    }
    if resources.gpus_per_node:
        parameters["gpus_per_node"] = resources.gpus_per_node
        parameters["srun_args"] += ["--gpu-bind=none"]
    if max_parallel:
        parameters["array_parallelism"] = max_parallel
    if resources.memory_gb:
        parameters["mem"] = f"{resources.memory_gb:g}GB"
    return parameters


def report_parameters(run: str, resources: Resources, site: Site, after: str | None) -> dict[str, Any]:
    """submitit's parameters of the report of a run on SLURM; it starts `after` the training, however that ended."""
    return {
        **_common_parameters(f"report-{run}", site.setup, resources.report_hours, site.cpu),
        "nodes": 1, "ntasks_per_node": 1, "cpus_per_task": resources.cpus_per_rank,
        **({"dependency": f"afterany:{after}"} if after else {}),
    }


def _common_parameters(name: str, setup: Sequence[str], hours: float, queue: Queue) -> dict[str, Any]:
    given = {key: value for key, value in dataclasses.asdict(queue).items() if value is not None}
    return {
        **given, "job_name": name, "time": max(1, round(hours * 60)), "wckey": None,
        # srun of SLURM 22.05 and later does not take --cpus-per-task from sbatch
        "setup": [*setup, "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"],
        # many clusters do not requeue after a preemption or a node failure unless asked to
        "additional_parameters": {"requeue": True},
    }
