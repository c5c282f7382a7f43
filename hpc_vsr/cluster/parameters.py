"""The parameters that submitit passes to SLURM for each job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpc_vsr.cluster.logs import SAY_LAST
from hpc_vsr.cluster.site import Queue, Site
from hpc_vsr.experiment.resources import Resources, slurm_memory


def preprocess_parameters(run: str, resources: Resources, site: Site, mpi: str) -> dict[str, Any]:
    """Return submitit's parameters for the preprocessing on SLURM; `mpi` is the value of `srun --mpi`."""
    return {
        **_common_parameters(f"preprocess-{run}", site.setup, resources.preprocess_hours, site.cpu),
        "nodes": resources.preprocess_nodes, "ntasks_per_node": resources.preprocess_ranks, "cpus_per_task": 1,
        "srun_args": [f"--mpi={mpi}", "--kill-on-bad-exit=1", "--wait=60"],
    }


def train_parameters(run: str, resources: Resources, site: Site, max_parallel: int = 0, after: str | None = None
                     ) -> dict[str, Any]:
    """Return submitit's parameters for training a run on SLURM, or an array of runs, `max_parallel` at a time."""
    queue = site.gpu if resources.gpus_per_node else site.cpu  # accounts for GPUs refuse jobs without GPUs
    parameters = {
        **_common_parameters(f"train-{run}", site.setup, resources.hours, queue),
        "nodes": resources.nodes,
        "ntasks_per_node": resources.ranks_per_node,
        "cpus_per_task": resources.cpus_per_rank,
        "signal_delay_s": resources.signal_seconds,
        "srun_args": ["--kill-on-bad-exit=1", "--wait=60"],
    }
    if resources.gpus_per_node:
        count = resources.gpus_per_node
        parameters["gpus_per_node"] = f"{site.gpu_type}:{count}" if site.gpu_type else count
        parameters["srun_args"] += ["--gpu-bind=none"]
    if max_parallel:
        parameters["array_parallelism"] = max_parallel
    if resources.memory_gb:
        parameters["mem"] = slurm_memory(resources.memory_gb)
    if after:  # without the second option a job whose data set has failed would wait forever
        parameters["dependency"] = f"afterok:{after}"
        parameters["additional_parameters"]["kill-on-invalid-dep"] = "yes"
    return parameters


def report_parameters(run: str, resources: Resources, site: Site, after: Sequence[str]) -> dict[str, Any]:
    """Return submitit's parameters for the report on SLURM; it starts when the trainings in `after` have ended."""
    return {
        **_common_parameters(f"report-{run}", site.setup, resources.report_hours, site.cpu),
        "nodes": 1, "ntasks_per_node": 1, "cpus_per_task": resources.cpus_per_rank,
        **({"mem": slurm_memory(resources.report_memory_gb)} if resources.report_memory_gb else {}),
        **({"dependency": f"afterany:{':'.join(after)}"} if after else {}),
    }


def _common_parameters(name: str, setup: Sequence[str], hours: float, queue: Queue) -> dict[str, Any]:
    return {
        **queue.given(), "job_name": name, "time": max(1, round(hours * 60)), "wckey": None,
        # since SLURM 22.05 srun does not inherit --cpus-per-task from sbatch
        "setup": [SAY_LAST, *setup, "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"],
        # many clusters do not requeue after a preemption or a node failure unless asked to
        "additional_parameters": {"requeue": True},
    }
