"""Submit the chain of a job file to SLURM through submitit: preprocessing, training, report.

What is still in the queue from before is not submitted a second time; see `hpc_vsr.cluster.record`.
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
from hpc_vsr.experiment.jobfile import JobFile, list_pending, needs_data
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.system import slurm as cluster
from hpc_vsr.system.errors import Failed, InputError
from hpc_vsr.system.files import create_folder, write_json
from hpc_vsr.system.mpi import srun_type

# keeps SLURM's signals while Python and torch are loading
PYTHON = f"{shlex.quote(sys.executable)} -m hpc_vsr.signals"


@dataclass(frozen=True)
class Step:
    """One submission: submitit's parameters and what runs; an array if it says so."""

    name: str
    parameters: dict[str, Any]
    jobs: tuple[Callable[[], int], ...]
    is_array: bool = False


class Chain:
    """The submissions of a job file: those that are wanted, and their dependencies.

    Parameters
    ----------
    job : JobFile
    experiments : sequence of Experiment
        All runs of the report.
    site : Site
    queue : Queue
        What is there already.
    """

    def __init__(self, job: JobFile, experiments: Sequence[Experiment], site: Site, queue: Queue):
        self.job, self.experiments, self.site, self.queue = job, experiments, site, queue
        self.pending = [experiment for experiment in list_pending(experiments)
                        if run_key(experiment.out) not in queue.runs]

    @property
    def makes_data(self) -> bool:
        return bool(self.pending) and needs_data(self.job) and self.queue.data is None

    def data(self) -> Step:
        mpi = srun_type() if self.site.mpi == "auto" else self.site.mpi
        return Step(DATA, preprocess_parameters(self.job.name, self.job.resources, self.site, mpi),
                    (PreprocessJob(self.job.recipe, self.job.data),))

    def training(self, data: str | None) -> Step:
        """`data` is the job that makes the data set, if there is one."""
        is_array = len(self.experiments) > 1
        parameters = train_parameters(self.job.name, self.job.resources, self.site,
                                      self.job.max_parallel if is_array else 0, data)
        return Step(TRAINING, parameters, tuple(TrainJob(experiment, self.job.resources.max_requeues)
                                                for experiment in self.pending), is_array)

    def report(self, trainings: Sequence[str]) -> Step:
        """`trainings` are the jobs whose end it waits for."""
        return Step(REPORT, report_parameters(self.job.name, self.job.resources, self.site, trainings),
                    (ReportJob(tuple(self.experiments), self.job.report),))


def submit(job: JobFile, experiments: Sequence[Experiment], site: Site) -> str:
    """Submit what is missing and return what was done, for the user.

    Raises
    ------
    InputError
        If there is no SLURM on this machine, or sbatch refuses; what this call had submitted is cancelled then.
    Failed
        If SLURM does not answer.
    """
    if not cluster.has_slurm():
        raise _no_slurm()
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

    data = queue.data
    if chain.makes_data:
        create_folder(job.data)
        data = send(chain.data())
        write_json(job.data / RECORD, {DATA: data})
    trainings = {number.split("_")[0] for number in queue.runs.values()}
    runs = {**queue.others, **queue.runs}
    if chain.pending:
        trainings.add(send(chain.training(data)))
        runs.update(zip(map(run_key, (experiment.out for experiment in chain.pending)), submitted[-1][1], strict=True))
        write_json(job.out / RECORD, {"runs": runs})
    replaced = queue.report if queue.report and not queue.others else None
    if replaced:  # it would come before the runs that are submitted now
        cluster.cancel([replaced])
    write_json(job.out / RECORD, {"runs": runs, REPORT: send(chain.report(sorted(trainings)))})
    return _told(job, chain, submitted, replaced)


def _told(job: JobFile, chain: Chain, submitted: Sequence[tuple[str, list[str]]], replaced: str | None) -> str:
    total = len(chain.experiments)
    parts = [f"{name} {numbers[0].split('_')[0]}"
             + (f" ({len(numbers)} of {total} runs)" if name == TRAINING and total > 1 else "")
             for name, numbers in submitted]
    left = f"; {len(chain.queue.runs)} runs are in the queue from before" if chain.queue.runs else ""
    left += f"; report {replaced} is cancelled, the new one waits for all runs" if replaced else ""
    return (f"submitted: {', '.join(parts)}{left}\nlogs: {job.logs}/JOB_RANK_log.err\n"
            f"report: {job.report / 'index.html'}")


def _send(step: Step, logs: Path, before: Sequence[str]) -> list[str]:
    """Numbers of the submitted jobs; if they are refused, those of `before` are cancelled."""
    executor = submitit.SlurmExecutor(logs, python=PYTHON)
    executor.update_parameters(**step.parameters)
    try:
        with cluster.outside_of_job():
            if not step.is_array:
                return [executor.submit(job).job_id for job in step.jobs]
            with executor.batch():
                jobs = [executor.submit(job) for job in step.jobs]
            return [job.job_id for job in jobs]
    except submitit.core.utils.FailedJobError as error:  # what sbatch answers: a wrong partition, account, size
        reason = str(error).strip().splitlines()[-1]
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
    """The sbatch script of every submission that is missing, for --dry-run; needs no SLURM and does not ask it."""
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
            return 1  # pretend that srun is there

    executor = Text(folder, python=PYTHON)
    executor.update_parameters(**step.parameters)
    if step.is_array and len(step.jobs) > 1:
        executor.parameters["map_count"] = len(step.jobs)  # what submitit sets for an array
    return executor._make_submission_file_text(executor._submitit_command_str, "")
