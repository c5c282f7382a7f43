"""The ``[resources]`` of a job file: what its jobs ask for on a cluster."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from hpc_vsr.system.config import check_finite
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.sbatch import parse_options


@dataclass(frozen=True)
class Resources:
    """Resources that the jobs of a job file ask for. The report job asks for one rank and no GPU.

    A site file may have them too; the job file and the command line come before it.

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
        Memory of the training job on each node; 0 takes the default of the cluster.
    hours : float
        Time limit of the training job. A run that needs longer goes back to the queue and continues.
    signal_seconds : int
        The training is told to stop this many seconds before the time limit; enough for a step and a checkpoint.
    options : list of str
        Further options of sbatch for the training, such as ["--reservation=name", "--exclusive", "--qos=high"].
    report_cpus : int
        Cores of the report job; as many as cpus_per_rank if not given.
    report_hours : float
        Time limit of the report job, which measures all runs on the CPU.
    report_memory_gb : float
        Memory of the report job; 450x300 frames need about 2 GB.
    report_options : list of str
        Further options of sbatch for the report, such as ["--mail-user=me@example.org", "--mail-type=END"].
    preprocess_nodes : int
        Nodes of the preprocessing job.
    preprocess_ranks : int
        MPI ranks of the preprocessing on each node.
    preprocess_cpus : int
        Cores of each of these ranks.
    preprocess_memory_gb : float
        Memory of the preprocessing on each node; 0 takes the default of the cluster.
    preprocess_hours : float
        Time limit of the preprocessing.
    preprocess_options : list of str
        Further options of sbatch for the preprocessing.
    max_requeues : int
        How often a training may go back to the queue, after its time limit or a preemption. It does not go back if it
        made no step.
    """

    nodes: int = 1
    ranks_per_node: int = 1
    cpus_per_rank: int = 1
    gpus_per_node: int = 0
    memory_gb: float = 0.0
    hours: float = 1.0
    signal_seconds: int = 120
    options: list[str] = dataclasses.field(default_factory=list)
    report_cpus: int | None = None
    report_hours: float = 1.0
    report_memory_gb: float = 4.0
    report_options: list[str] = dataclasses.field(default_factory=list)
    preprocess_nodes: int = 1
    preprocess_ranks: int = 8
    preprocess_cpus: int = 1
    preprocess_memory_gb: float = 0.0
    preprocess_hours: float = 1.0
    preprocess_options: list[str] = dataclasses.field(default_factory=list)
    max_requeues: int = 20

    def __post_init__(self):
        check_finite(self, "resources")
        if min(self.nodes, self.ranks_per_node, self.cpus_per_rank, self.preprocess_nodes, self.preprocess_ranks,
               self.preprocess_cpus, self.signal_seconds, self.cores_of_report) < 1 \
                or min(self.gpus_per_node, self.max_requeues, self.memory_gb, self.report_memory_gb,
                       self.preprocess_memory_gb) < 0 \
                or min(self.hours, self.report_hours, self.preprocess_hours) <= 0:
            raise InputError("resources: numbers of nodes, ranks, cores and signal_seconds must be at least 1, "
                             "gpus_per_node, max_requeues and memory at least 0, hours above 0")
        for key in ("options", "report_options", "preprocess_options"):
            parse_options(getattr(self, key), f"resources.{key}")
        if self.hours * 3600 < self.signal_seconds + 60:
            raise InputError(f"resources.hours: {self.hours:g} hours are too short: the training is told to stop "
                             f"{self.signal_seconds} s before the end (signal_seconds), and SLURM may be a minute "
                             "early")
        if 0 < self.gpus_per_node < self.ranks_per_node:
            raise InputError(f"resources: {self.ranks_per_node} ranks and {self.gpus_per_node} "
                             f"GPU{'s' * (self.gpus_per_node > 1)} a node; one rank drives one GPU")

    @property
    def cores_of_report(self) -> int:
        return self.cpus_per_rank if self.report_cpus is None else self.report_cpus


def slurm_memory(gigabytes: float) -> str:
    """Return memory in SLURM's notation, which has only whole numbers."""
    return f"{round(gigabytes * 1024)}M"
