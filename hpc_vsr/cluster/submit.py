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
from hpc_vsr.cluster.limits import check_limits, check_slices, format_keys
from hpc_vsr.cluster.parameters import Stage, preprocess_parameters, report_parameters, train_parameters
from hpc_vsr.cluster.record import (
    DATA,
    REPORT,
    TRAINING,
    QueuedJobs,
    read_queued_jobs,
    record_data,
    record_runs,
    run_key,
)
from hpc_vsr.cluster.site import Site
from hpc_vsr.experiment.jobfile import JobFile, list_pending
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.experiment.start import by_folder, sibling_of
from hpc_vsr.system import slurm
from hpc_vsr.system.errors import Failed, InputError
from hpc_vsr.system.files import create_folder
from hpc_vsr.system.mpi import srun_type

# holds back SLURM's signals while Python and torch are loading
PYTHON = f"{shlex.quote(sys.executable)} -m hpc_vsr.signals"


@dataclass(frozen=True)
class Step:
    """One submission to SLURM: its parameters for submitit and its jobs, which form an array if `is_array`."""

    name: Stage
    parameters: dict[str, Any]
    jobs: tuple[Callable[[], int], ...]
    is_array: bool = False


class Chain:
    """The submissions of a job file that are not yet in the queue.

    Parameters
    ----------
    job : JobFile
    experiments : sequence of Experiment
        All runs of the report.
    site : Site
    queue : QueuedJobs
        The jobs that are already in SLURM's queue.
    """

    def __init__(self, job: JobFile, experiments: Sequence[Experiment], site: Site, queue: QueuedJobs):
        self.job, self.experiments, self.site, self.queue = job, experiments, site, queue
        self.pending = [experiment for experiment in list_pending(experiments)
                        if not experiment.impossible and run_key(experiment.out) not in queue.runs]

    @property
    def makes_data(self) -> bool:
        """True if the preprocessing must be submitted."""
        return bool(self.pending) and self.job.needs_data and self.queue.data is None

    @property
    def stages(self) -> list[Stage]:
        """What must be submitted, in this order."""
        return [*([DATA] if self.makes_data else []), *([TRAINING] if self.pending else []), REPORT]

    def data_step(self) -> Step:
        """Return the submission of the preprocessing."""
        mpi = srun_type() if self.site.mpi == "auto" else self.site.mpi
        return Step(DATA, preprocess_parameters(self.job.name, self.job.resources, self.site, mpi),
                    (PreprocessJob(self.job.recipe, self.job.data),))

    @property
    def waves(self) -> list[list[Experiment]]:
        """The missing runs in one list, or in several if some start from others of them: these come first."""
        left, waves = by_folder(self.pending), []
        while left:
            ready = {folder: run for folder, run in left.items() if sibling_of(run, left) is None}
            waves.append(list(ready.values()))
            left = {folder: run for folder, run in left.items() if folder not in ready}
        return waves

    def training_step(self, wave: Sequence[Experiment], after: Sequence[str]) -> Step:
        """Return the submission of some missing runs.

        They wait for the jobs in `after`, which make the data set and the runs that they start from.
        """
        is_array = len(self.experiments) > 1
        parameters = train_parameters(self.job.name, self.job.resources, self.site,
                                      self.job.max_parallel if is_array else 0, ":".join(after))
        return Step(TRAINING, parameters, tuple(TrainJob(experiment, self.job.resources.max_requeues)
                                                for experiment in wave), is_array)

    def report_step(self, trainings: Sequence[str]) -> Step:
        """Return the submission of the report, which waits for the end of the jobs in `trainings`."""
        return Step(REPORT, report_parameters(self.job.name, self.job.resources, self.site, trainings),
                    (ReportJob(tuple(self.experiments), self.job.report),))


def submit(job: JobFile, experiments: Sequence[Experiment], site: Site) -> str:
    """Submit what is missing and return the text to print.

    Raises
    ------
    InputError
        If this machine has no SLURM, or sbatch refuses a job; the jobs that this call has submitted are then cancelled.
    Failed
        If SLURM does not answer.
    """
    if not slurm.has_slurm():
        raise InputError("--cluster slurm: squeue is not on this machine; log in to the cluster, "
                         "or use --cluster local, or --dry-run to see the scripts")
    # which jobs does the queue have from an earlier launch?
    chain = Chain(job, experiments, site, read_queued_jobs(job, experiments))
    queue = chain.queue
    if queue.report and not chain.pending:
        return (f"{len(queue.runs)} of {len(experiments)} runs and the report (job {queue.report}) are in the queue; "
                "nothing was submitted")
    check_limits(chain.stages, job.resources, site)
    create_folder(job.logs)
    create_folder(job.out)
    submitted: list[tuple[str, list[str]]] = []

    def send(step: Step) -> str:
        numbers = _submit_step(step, job, [numbers[0].split("_")[0] for _, numbers in submitted])
        submitted.append((step.name, numbers))
        return numbers[0].split("_")[0]

    # the data set: each submission is recorded at once, so that a crash here does not lose track of it
    data = queue.data
    if chain.makes_data:
        create_folder(job.data)
        data = send(chain.data_step())
        record_data(job, data)
    # the trainings: the report waits for those in the queue and those submitted now
    trainings = {number.split("_")[0] for number in queue.runs.values()}
    runs = {**queue.others, **queue.runs}
    for wave in chain.waves:
        starts = {runs.get(run_key(experiment.train.from_)) for experiment in wave if experiment.train.from_} - {None}
        trainings.add(send(chain.training_step(wave, [*filter(None, [data]), *sorted(starts)])))
        runs.update(zip(map(run_key, (experiment.out for experiment in wave)), submitted[-1][1], strict=True))
        record_runs(job, runs)
    # the report: one from an earlier launch would start before the new runs have ended
    replaced = queue.report if queue.report and not queue.others else None
    if replaced:
        slurm.cancel([replaced])
    record_runs(job, runs, send(chain.report_step(sorted(trainings))))
    return _format_submission(job, chain, submitted, replaced)


def _format_submission(job: JobFile, chain: Chain, submitted: Sequence[tuple[str, list[str]]], replaced: str | None
                       ) -> str:
    """Return the text that tells the user what was submitted."""
    total = len(chain.experiments)
    parts = [f"{name} {numbers[0].split('_')[0]}"
             + (f" ({len(numbers)} of {total} runs)" if name == TRAINING and total > 1 else "")
             for name, numbers in submitted]
    left = f"; {len(chain.queue.runs)} runs were in the queue before" if chain.queue.runs else ""
    left += f"; report {replaced} was cancelled, because the new one waits for all runs" if replaced else ""
    return (f"submitted: {', '.join(parts)}{left}\nlogs: {job.logs}/JOB_RANK_log.err\n"
            f"report: {job.report / 'index.html'}")


def _submit_step(step: Step, job: JobFile, before: Sequence[str]) -> list[str]:
    """Submit a step and return the numbers of its jobs; if sbatch refuses, cancel the jobs in `before`."""
    executor = submitit.SlurmExecutor(job.logs, python=PYTHON)
    executor.update_parameters(**step.parameters)
    try:
        with slurm.outside_of_job():
            if not step.is_array:
                return [executor.submit(work).job_id for work in step.jobs]
            with executor.batch():
                jobs = [executor.submit(work) for work in step.jobs]
            return [submitted.job_id for submitted in jobs]
    except submitit.core.utils.FailedJobError as error:  # sbatch refused: a wrong partition, account or size
        reason = str(error).strip().splitlines()[-1]
        # the earlier jobs are useless without this one
        undone = ""
        if before:
            undone = f"; the jobs submitted before it ({', '.join(before)}) were cancelled"
            try:
                slurm.cancel(before)
            except Failed as failed:
                undone = f"; cancel the jobs submitted before it yourself: {', '.join(before)} ({failed})"
        raise InputError(f"sbatch refused the {step.name}: {reason}; check --site, --project and [resources]: "
                         f"{format_keys(step.name, job.resources)}{undone}") from None


def format_scripts(job: JobFile, experiments: Sequence[Experiment], site: Site) -> str:
    """Return the sbatch scripts of all missing submissions, for --dry-run; this needs no SLURM.

    On a cluster, what would never start is told as a warning.
    """
    chain = Chain(job, experiments, site, QueuedJobs({}))
    check_slices(job.resources, site)
    if slurm.has_slurm():
        check_limits(chain.stages, job.resources, site, refuse=False)
    data = [DATA] if chain.makes_data else []
    steps = {name: chain.data_step() for name in data}
    # where a script waits for others, their names in capitals stand for the numbers of their jobs
    waves: list[str] = []
    for wave in chain.waves:
        name = f"{TRAINING}_{len(waves) + 1}" if waves else TRAINING
        steps[name] = chain.training_step(wave, [before.upper() for before in [*data, *waves[-1:]]])
        waves.append(name)
    steps[REPORT] = chain.report_step([name.upper() for name in waves])
    return "\n".join(f"### {name}\n{_format_script(job.logs, step)}" for name, step in steps.items())


def _format_script(folder: Path, step: Step) -> str:
    class WithoutSrun(SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            return 1  # pretend that there is an srun

    executor = WithoutSrun(folder, python=PYTHON)
    executor.update_parameters(**step.parameters)
    if step.is_array and len(step.jobs) > 1:
        executor.parameters["map_count"] = len(step.jobs)  # as submitit sets it for an array
    return executor._make_submission_file_text(executor._submitit_command_str, "")
