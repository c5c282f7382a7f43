"""Submit the chain of a job file to SLURM through submitit: preprocessing, training, report.

What was submitted is kept in ``.submitted.json`` of the run folder, so that a run that is still in the queue is not
submitted a second time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.slurm.slurm import SlurmExecutor

from hpc_vsr import cluster
from hpc_vsr.errors import InputError
from hpc_vsr.experiment import Experiment
from hpc_vsr.files import create_folder, write_json
from hpc_vsr.job import PreprocessJob, ReportJob, TrainJob
from hpc_vsr.jobfile import JobFile, list_pending, needs_data
from hpc_vsr.mpi import srun_type
from hpc_vsr.site import Site
from hpc_vsr.slurm import preprocess_parameters, report_parameters, train_parameters

RECORD = ".submitted.json"


@dataclass(frozen=True)
class Step:
    """One submission: submitit's parameters and what runs; several callables make an array."""

    name: str
    parameters: dict[str, Any]
    jobs: tuple[Callable[[], int], ...]


def plan_chain(job: JobFile, experiments: Sequence[Experiment], pending: Sequence[Experiment], site: Site,
               after: Sequence[str] = ()) -> list[Callable[[list[str]], Step]]:
    """The submissions in their order; each is made when the numbers of those before it are known.

    Parameters
    ----------
    job : JobFile
    experiments : sequence of Experiment
        All runs of the report.
    pending : sequence of Experiment
        Those to be trained.
    site : Site
    after : sequence of str
        Jobs in the queue whose end the report waits for too.
    """
    resources, name = job.resources, job.name
    throttle = job.max_parallel if len(experiments) > 1 else 0
    steps: list[Callable[[list[str]], Step]] = []
    makes_data = needs_data(job)
    if makes_data and pending:
        mpi = srun_type() if site.mpi == "auto" else site.mpi
        steps.append(lambda ids: Step("preprocessing", preprocess_parameters(name, resources, site, mpi),
                                      (PreprocessJob(job.recipe, job.data),)))
    if pending:
        steps.append(lambda ids: Step(
            "training", train_parameters(name, resources, site, throttle, ids[0] if makes_data else None),
            tuple(TrainJob(experiment, resources.max_requeues) for experiment in pending)))
    steps.append(lambda ids: Step("report", report_parameters(name, resources, site, [*ids[-1:], *after]),
                                  (ReportJob(tuple(experiments), job.report),)))
    return steps


def submit(job: JobFile, experiments: Sequence[Experiment], site: Site) -> str:
    """Submit what is missing and return what was done, for the user.

    Raises
    ------
    InputError
        If there is no SLURM on this machine, or sbatch refuses.
    Failed
        If SLURM does not answer.
    """
    queued = in_queue(job)
    pending = [experiment for experiment in list_pending(experiments) if str(experiment.out) not in queued]
    if queued and not pending:
        return (f"{len(queued)} of {len(experiments)} runs are in the queue and the others are finished; "
                "nothing was submitted")
    create_folder(job.logs)
    record: dict[str, str] = dict(queued)
    ids: list[str] = []
    told = []
    for make in plan_chain(job, experiments, pending, site, sorted(set(queued.values()))):
        step = make(ids)
        elements = _submit_step(step, job.logs, is_array=step.name == "training" and len(experiments) > 1)
        ids.append(elements[0].split("_")[0])
        count = f" ({len(elements)} of {len(experiments)} runs)" if len(experiments) > 1 and step.name == "training" \
            else ""
        told.append(f"{step.name} {ids[-1]}{count}")
        if step.name == "training":
            record.update(zip((str(experiment.out) for experiment in pending), elements, strict=True))
            create_folder(job.out)
            write_json(job.out / RECORD, record)
    left = f"; {len(queued)} runs are in the queue from before" if queued else ""
    return (f"submitted: {', '.join(told)}{left}; logs in {job.logs}/\n"
            f"report: {job.report / 'index.html'}")


def read_record(out: Path) -> dict[str, str]:
    """{run folder: job number} of the last submission of a job file."""
    try:
        record = json.loads((out / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return {str(run): str(job) for run, job in record.items()} if isinstance(record, dict) else {}


def in_queue(job: JobFile) -> dict[str, str]:
    """{run folder: job number} of the runs that SLURM has in its queue."""
    record = read_record(job.out)
    if not record:
        return {}
    if not cluster.has_slurm():
        raise _no_slurm()
    queue = cluster.read_queue()
    return {run: number for run, number in record.items() if number in queue}


def _submit_step(step: Step, logs: Path, is_array: bool) -> list[str]:
    """Numbers of the submitted jobs."""
    try:
        executor = submitit.SlurmExecutor(logs)
    except RuntimeError:
        raise _no_slurm() from None
    executor.update_parameters(**step.parameters)
    try:
        with cluster.outside_of_job():
            if not is_array:
                return [executor.submit(job).job_id for job in step.jobs]
            with executor.batch():
                jobs = [executor.submit(job) for job in step.jobs]
            return [job.job_id for job in jobs]
    except submitit.core.utils.FailedJobError as error:  # what sbatch answers: a wrong partition, account, size
        raise InputError(f"sbatch refused the {step.name}: {str(error).strip().splitlines()[-1]}; "
                         "check --site, --project and [resources]") from None


def _no_slurm() -> InputError:
    return InputError("--cluster slurm: srun is not on this machine; log in to the cluster, "
                      "or use --cluster local, or --dry-run to see the scripts")


def format_scripts(job: JobFile, experiments: Sequence[Experiment], site: Site) -> str:
    """The sbatch script of every submission, for --dry-run; needs no SLURM."""
    pending = list_pending(experiments)
    texts, ids = [], []
    for make in plan_chain(job, experiments, pending, site):
        step = make(ids)
        ids.append(step.name.upper())
        is_array = step.name == "training" and len(experiments) > 1
        texts.append(f"### {step.name}\n{_script_text(job.logs, step.parameters, len(step.jobs) if is_array else 1)}")
    return "\n".join(texts)


def _script_text(folder: Path, parameters: dict[str, Any], num_elements: int) -> str:
    class Text(SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            return 1  # pretend that srun is there

    executor = Text(folder)
    executor.update_parameters(**parameters)
    if num_elements > 1:
        executor.parameters["map_count"] = num_elements  # what submitit sets for an array
    return executor._make_submission_file_text(executor._submitit_command_str, "")

