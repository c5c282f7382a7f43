"""Submits the chain of a job file to SLURM through submitit: preprocessing, training, report.

Jobs that are still in the queue are not submitted a second time; see `hpc_vsr.cluster.record`.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.slurm.slurm import SlurmExecutor

from hpc_vsr.cluster.jobs import PreprocessJob, ReportJob, TrainJob
from hpc_vsr.cluster.parameters import preprocess_parameters, report_parameters, train_parameters
from hpc_vsr.cluster.record import DATA, RECORD, REPORT, TRAINING, Queue, read_queue, run_key
from hpc_vsr.cluster.site import Site
from hpc_vsr.experiment.jobfile import JobFile, list_pending
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.system import slurm as cluster
from hpc_vsr.system.errors import Failed, InputError
from hpc_vsr.system.files import create_folder, write_json
from hpc_vsr.system.mpi import srun_type

# holds back SLURM's signals while Python and torch are loading
PYTHON = f"{shlex.quote(sys.executable)} -m hpc_vsr.signals"


@dataclass(frozen=True)
class Step:
    """One submission: submitit's parameters and the jobs to run, as an array if `is_array`."""

    name: str
    parameters: dict[str, Any]
    jobs: tuple[Callable[[], int], ...]
    is_array: bool = False


class Chain:
    """The submissions of a job file: those that are missing, and their dependencies.

    Parameters
    ----------
    job : JobFile
    experiments : sequence of Experiment
        All runs of the report.
    site : Site
    queue : Queue
        The jobs that are in SLURM's queue already.
    """

    def __init__(self, job: JobFile, experiments: Sequence[Experiment], site: Site, queue: Queue):
        self.job, self.experiments, self.site, self.queue = job, experiments, site, queue
        self.pending = [experiment for experiment in list_pending(experiments)
                        if run_key(experiment.out) not in queue.runs]

    @property
    def makes_data(self) -> bool:
        """Whether the preprocessing must be submitted."""
        return bool(self.pending) and self.job.needs_data and self.queue.data is None

    def data(self) -> Step:
        """Return the submission of the preprocessing."""
        mpi = srun_type() if self.site.mpi == "auto" else self.site.mpi
        return Step(DATA, preprocess_parameters(self.job.name, self.job.resources, self.site, mpi),
                    (PreprocessJob(self.job.recipe, self.job.data),))

    def training(self, data: str | None) -> Step:
        """Return the submission of the missing runs; `data` is the job that makes the data set, if there is one."""
        is_array = len(self.experiments) > 1
        parameters = train_parameters(self.job.name, self.job.resources, self.site,
                                      self.job.max_parallel if is_array else 0, data)
        return Step(TRAINING, parameters, tuple(TrainJob(experiment, self.job.resources.max_requeues)
                                                for experiment in self.pending), is_array)

    def report(self, trainings: Sequence[str]) -> Step:
        """Return the submission of the report, which waits for the end of the jobs in `trainings`."""
        return Step(REPORT, report_parameters(self.job.name, self.job.resources, self.site, trainings),
                    (ReportJob(tuple(self.experiments), self.job.report),))


def submit(job: JobFile, experiments: Sequence[Experiment], site: Site) -> str:
    """Submit what is missing and return a text for the user that says what was done.

    Raises
    ------
    InputError
        If there is no SLURM on this machine, or sbatch refuses a job; the jobs submitted by this call are then
        cancelled.
    Failed
        If SLURM does not answer.
    """
    if not cluster.has_slurm():
        raise _no_slurm()
    # find out which jobs are in the queue from an earlier launch
    chain = Chain(job, experiments, site, read_queue(job, experiments))
    queue = chain.queue
    if queue.report and not chain.pending:
        return (f"{len(queue.runs)} of {len(experiments)} runs and the report (job {queue.report}) are in the queue; "
                "nothing was submitted")
    create_folder(job.logs)
    create_folder(job.out)
    submitted: list[tuple[str, list[str]]] = []

    def send(step: Step) -> str:
        numbers = _send(step, job.logs, [numbers[0].split("_")[0] for _, numbers in submitted])
        submitted.append((step.name, numbers))
        return numbers[0].split("_")[0]

    # each submission is recorded at once, so that a crash here does not lose track of it
    data = queue.data
    if chain.makes_data:
        create_folder(job.data)
        data = send(chain.data())
        write_json(job.data / RECORD, {DATA: data})
    # the report waits for all trainings, those in the queue and those submitted now
    trainings = {number.split("_")[0] for number in queue.runs.values()}
    runs = {**queue.others, **queue.runs}
    if chain.pending:
        trainings.add(send(chain.training(data)))
        runs.update(zip(map(run_key, (experiment.out for experiment in chain.pending)), submitted[-1][1], strict=True))
        write_json(job.out / RECORD, {"runs": runs})
    replaced = queue.report if queue.report and not queue.others else None
    if replaced:  # it would run before the runs that are submitted now
        cluster.cancel([replaced])
    write_json(job.out / RECORD, {"runs": runs, REPORT: send(chain.report(sorted(trainings)))})
    return _told(job, chain, submitted, replaced)


def _told(job: JobFile, chain: Chain, submitted: Sequence[tuple[str, list[str]]], replaced: str | None) -> str:
    """Return what was done as text for the user."""
    total = len(chain.experiments)
    parts = [f"{name} {numbers[0].split('_')[0]}"
             + (f" ({len(numbers)} of {total} runs)" if name == TRAINING and total > 1 else "")
             for name, numbers in submitted]
    left = f"; {len(chain.queue.runs)} runs are in the queue from before" if chain.queue.runs else ""
    left += f"; report {replaced} is cancelled, the new one waits for all runs" if replaced else ""
    return (f"submitted: {', '.join(parts)}{left}\nlogs: {job.logs}/JOB_RANK_log.err\n"
            f"report: {job.report / 'index.html'}")


def _send(step: Step, logs: Path, before: Sequence[str]) -> list[str]:
    """Submit a step and return the numbers of its jobs; if sbatch refuses, cancel the jobs in `before`."""
    executor = submitit.SlurmExecutor(logs, python=PYTHON)
    executor.update_parameters(**step.parameters)
    try:
        with cluster.outside_of_job():
            if not step.is_array:
                return [executor.submit(job).job_id for job in step.jobs]
            with executor.batch():
                jobs = [executor.submit(job) for job in step.jobs]
            return [job.job_id for job in jobs]
    except submitit.core.utils.FailedJobError as error:  # sbatch refused: a wrong partition, account or size
        reason = str(error).strip().splitlines()[-1]
        # a chain that lacks a link is useless: cancel what this call submitted before
        undone = ""
        if before:
            undone = f"; what was submitted before it ({', '.join(before)}) is cancelled"
            try:
                cluster.cancel(before)
            except Failed as failed:
                undone = f"; cancel yourself what was submitted before it, {', '.join(before)} ({failed})"
        raise InputError(f"sbatch refused the {step.name}: {reason}; check --site, --project and [resources]{undone}"
                         ) from None


def _no_slurm() -> InputError:
    return InputError("--cluster slurm: srun is not on this machine; log in to the cluster, "
                      "or use --cluster local, or --dry-run to see the scripts")


def format_scripts(job: JobFile, experiments: Sequence[Experiment], site: Site) -> str:
    """Return the sbatch script of every missing submission, for --dry-run; this needs no SLURM and does not ask it."""
    chain = Chain(job, experiments, site, Queue({}))
    steps = [chain.data()] if chain.makes_data else []
    if chain.pending:
        steps.append(chain.training(DATA.upper() if chain.makes_data else None))
    steps.append(chain.report([TRAINING.upper()] if chain.pending else []))
    return "\n".join(f"### {step.name}\n{_script_text(job.logs, step)}" for step in steps)


def _script_text(folder: Path, step: Step) -> str:
    class Text(SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            return 1  # pretend that there is an srun

    executor = Text(folder, python=PYTHON)
    executor.update_parameters(**step.parameters)
    if step.is_array and len(step.jobs) > 1:
        executor.parameters["map_count"] = len(step.jobs)  # as submitit sets it for an array
    return executor._make_submission_file_text(executor._submitit_command_str, "")
