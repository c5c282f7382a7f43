"""What each job asks of SLURM: as options of sbatch, and as the parameters that submitit turns into these."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, Literal

from hpc_vsr.cluster.logs import SAY_LAST
from hpc_vsr.cluster.site import Queue, Site
from hpc_vsr.experiment.resources import Resources, slurm_memory
from hpc_vsr.system.sbatch import Options, format_options, merge, parse_options

Stage = Literal["preprocessing", "training", "report"]
PREPROCESSING, TRAINING, REPORT = "preprocessing", "training", "report"
OF_SUBMITIT = ("nodes", "ntasks-per-node", "cpus-per-task", "time")  # options that submitit must know
SETUP = (
    # since SLURM 22.05 srun does not inherit --cpus-per-task from sbatch
    "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK",
    # after SBATCH_EXPORT=NONE, a default of some clusters, srun would give the ranks nothing that was set in the script
    "export SLURM_EXPORT_ENV=ALL",
)


def stage_options(stage: Stage, resources: Resources, site: Site) -> Options:
    """Return what a job asks for on a site as options of sbatch, {name: value}.

    The partition's and the site's options come first, and those of the job file last: a later one wins.
    """
    queue = queue_of(stage, resources, site)
    sizes = {PREPROCESSING: _of_preprocessing, TRAINING: _of_training, REPORT: _of_report}
    size, further = sizes[stage](resources, site)
    return merge(queue.given(), size, parse_options(site.options, "options"), parse_options(queue.options, "options"),
                 parse_options(further, "resources"))


def format_job(stage: Stage, resources: Resources, site: Site) -> str:
    """Return what a job asks for as words for the command line of sbatch; the scripts in slurm/ are submitted so.

    HPC_VSR_GPU or HPC_VSR_CPU of the environment, which a user may have set without a site file, come first.
    """
    queue = "HPC_VSR_GPU" if queue_of(stage, resources, site) is site.gpu else "HPC_VSR_CPU"
    options = stage_options(stage, resources, site)
    options["ntasks"] = options["nodes"] * options["ntasks-per-node"]  # against the number in the head of a script
    return f"{os.environ.get(queue, '')} {format_options(options)}".strip()


def queue_of(stage: Stage, resources: Resources, site: Site) -> Queue:
    """Return the queue of a job: accounts for GPUs refuse jobs without GPUs."""
    return site.gpu if stage == TRAINING and resources.gpus_per_node else site.cpu


def _of_preprocessing(resources: Resources, site: Site) -> tuple[Options, list[str]]:
    ranks, cpus = resources.preprocess_ranks, resources.preprocess_cpus
    return {**_shape(resources.preprocess_nodes, ranks, cpus, resources.preprocess_hours),
            **_memory(resources.preprocess_memory_gb, ranks * cpus, site)}, resources.preprocess_options


def _of_training(resources: Resources, site: Site) -> tuple[Options, list[str]]:
    ranks, cpus = resources.ranks_per_node, resources.cpus_per_rank
    return {**_shape(resources.nodes, ranks, cpus, resources.hours), "signal": f"USR2@{resources.signal_seconds}",
            **(site.gpu_options(resources.gpus_per_node) if resources.gpus_per_node else {}),
            **_memory(resources.memory_gb, ranks * cpus, site)}, resources.options


def _of_report(resources: Resources, site: Site) -> tuple[Options, list[str]]:
    cpus = resources.cores_of_report
    return {**_shape(1, 1, cpus, resources.report_hours), **_memory(resources.report_memory_gb, cpus, site)}, \
        resources.report_options


def _shape(nodes: int, ranks: int, cpus: int, hours: float) -> Options:
    return {"nodes": nodes, "ntasks-per-node": ranks, "cpus-per-task": cpus, "time": max(1, round(hours * 60))}


def _memory(gigabytes: float, cores: int, site: Site) -> Options:
    """Return the option for memory on each node, where a job has `cores` cores; none if the site takes none."""
    if not gigabytes or site.memory_option == "none":
        return {}
    if site.memory_option == "mem-per-cpu":
        return {"mem-per-cpu": f"{math.ceil(gigabytes * 1024 / cores)}M"}
    return {"mem": slurm_memory(gigabytes)}


def preprocess_parameters(run: str, resources: Resources, site: Site, mpi: str) -> dict[str, Any]:
    """Return submitit's parameters for the preprocessing on SLURM; `mpi` is the value of `srun --mpi`."""
    return {**_as_parameters(PREPROCESSING, f"preprocess-{run}", resources, site),
            "srun_args": [f"--mpi={mpi}", "--kill-on-bad-exit=1", "--wait=60"]}


def train_parameters(run: str, resources: Resources, site: Site, max_parallel: int = 0, after: str = ""
                     ) -> dict[str, Any]:
    """Return submitit's parameters for training a run on SLURM, or an array of runs, `max_parallel` at a time.

    `after` has the numbers of the jobs that must have succeeded, joined by colons.
    """
    parameters = _as_parameters(TRAINING, f"train-{run}", resources, site)
    bind = ["--gpu-bind=none"] if resources.gpus_per_node else []
    parameters["srun_args"] = ["--kill-on-bad-exit=1", "--wait=60", *bind]
    if max_parallel:
        parameters["array_parallelism"] = max_parallel
    if after:  # without the second option a job whose data set or start has failed would wait forever
        parameters["dependency"] = f"afterok:{after}"
        parameters["additional_parameters"]["kill-on-invalid-dep"] = "yes"
    return parameters


def report_parameters(run: str, resources: Resources, site: Site, after: Sequence[str]) -> dict[str, Any]:
    """Return submitit's parameters for the report on SLURM; it starts when the trainings in `after` have ended."""
    return {**_as_parameters(REPORT, f"report-{run}", resources, site),
            **({"dependency": f"afterany:{':'.join(after)}"} if after else {})}


def _as_parameters(stage: Stage, name: str, resources: Resources, site: Site) -> dict[str, Any]:
    options = stage_options(stage, resources, site)
    known = {option.replace("-", "_"): options.pop(option) for option in OF_SUBMITIT}
    return {
        **known, "job_name": name, "wckey": None, "setup": [SAY_LAST, *site.setup, *SETUP],
        # many clusters do not requeue after a preemption or a node failure unless asked to
        "additional_parameters": {**options, "requeue": True},
    }
