"""The record of a job file's submitted jobs, ``.submitted.json``, and which of these jobs SLURM still has.

One record lies beside the runs, for the runs and their report, and one in the folder of the data set. With them, jobs
that are in the queue are not submitted a second time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_vsr.experiment.jobfile import JobFile
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.system import slurm
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import create_folder, read_json, write_json
from hpc_vsr.system.lock import is_held, read_lock

RECORD = ".submitted.json"
DATA, TRAINING, REPORT = "preprocessing", "training", "report"
DATA_FOLDER, CANCELLED = "data_folder", "cancelled"


@dataclass(frozen=True)
class QueuedJobs:
    """The jobs of a job file that SLURM has in its queue.

    Attributes
    ----------
    runs : dict
        {run folder: job number}.
    report, data : str or None
        Job numbers.
    others : dict
        Runs with other settings that were launched into the same folder: {run folder: job number}.
    """

    runs: dict[str, str]
    report: str | None = None
    data: str | None = None
    others: dict[str, str] = field(default_factory=dict)


def run_key(folder: Path) -> str:
    """Return the name that the record uses for a run folder, however its path is spelt."""
    return str(folder.absolute().resolve())


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of the last submission; empty if there is none.

    Beside the runs it is {"runs": {run folder: job number}, "report": job number, "data_folder": folder of their data
    set}, and beside a data set {"preprocessing": job number}. Both have "cancelled": numbers that `launch --cancel` has
    cancelled.
    """
    try:
        record = read_json(folder / RECORD, "")
    except InputError:
        return {}
    is_record = (isinstance(record, dict) and isinstance(record.get("runs", {}), dict)
                 and isinstance(record.get(CANCELLED, []), list))
    return record if is_record else {}


def is_cancelled(record: Mapping[str, Any], number: str | None) -> bool:
    """Return whether `launch --cancel` has cancelled the job with that number."""
    return number in record.get(CANCELLED, [])


def record_data(job: JobFile, number: str) -> None:
    """Record the job that makes the data set."""
    create_folder(job.data)
    write_json(job.data / RECORD, {DATA: number})


def record_runs(job: JobFile, runs: Mapping[str, str], report: str | None = None) -> None:
    """Record the jobs of the runs, {run folder: job number}, and that of their report."""
    create_folder(job.out)
    before = read_record(job.out)
    record = {"runs": dict(runs), DATA_FOLDER: str(job.data), REPORT: report,
              CANCELLED: [number for number in runs.values() if is_cancelled(before, number)]}
    write_json(job.out / RECORD, {key: value for key, value in record.items() if value or key == "runs"})


def _note_cancelled(folder: Path, numbers: Collection[str]) -> None:
    """Note in the record of a folder which of its jobs were cancelled."""
    record = read_record(folder)
    ours = {*record.get("runs", {}).values(), record.get(REPORT), record.get(DATA)}
    cancelled = sorted({*record.get(CANCELLED, []), *numbers} & ours)
    if cancelled != record.get(CANCELLED, []):
        write_json(folder / RECORD, {**record, CANCELLED: cancelled})


def record_scripts(job: JobFile, experiments: Sequence[Experiment], submitted: str) -> None:
    """Record the jobs of the scripts of slurm/ as `launch` records its own, so that `status` and `launch` know them.

    Parameters
    ----------
    job : JobFile
    experiments : sequence of Experiment
        The points of the array, in its order.
    submitted : str
        Such as ``preprocessing=12,training=13,report=14``; the training is an array with an element for each run.
    """
    numbers = {}
    for item in submitted.split(","):
        name, _, number = item.partition("=")
        if name not in (DATA, TRAINING, REPORT) or not re.fullmatch(r"\d+", number):
            raise InputError(f"--submitted: expected {DATA}=N,{TRAINING}=N,{REPORT}=N with the numbers of jobs, found "
                             f"{submitted!r}")
        numbers[name] = number
    if DATA in numbers:
        record_data(job, numbers[DATA])
    record = read_record(job.out)
    elements = {run_key(experiment.out): f"{numbers[TRAINING]}_{element}"
                for element, experiment in enumerate(experiments) if TRAINING in numbers}
    record_runs(job, {**record.get("runs", {}), **elements}, numbers.get(REPORT, record.get(REPORT)))


def cancel_chain(job: JobFile, experiments: Sequence[Experiment]) -> str:
    """Cancel the jobs of a job file that are in SLURM's queue, and return what was cancelled, as text.

    These are the runs, also those that were launched into the same folder with other settings, their report, and the
    making of their data set unless other job files wait for it. The record notes them, because a job that has not begun
    leaves no log that says it.
    """
    queued = read_queued_jobs(job, experiments)
    runs = {**queued.others, **queued.runs}
    numbers = [*([queued.report] if queued.report else []), *runs.values()]
    queue = slurm.read_queue()
    waiting = [entry.job for entry in queue.values() if queued.data and queued.data in entry.after
               and entry.job not in numbers]
    # of an array that was submitted with sbatch alone, nothing tells which runs its other elements train
    arrays = {number.partition("_")[0] for number in runs.values() if "_" in number}
    left = [number for number in queue if number.partition("_")[0] in arrays and number not in numbers]
    if queued.data and not waiting:
        numbers.append(queued.data)
    if not numbers:
        return f"{job.out}: nothing of it is in SLURM's queue"
    slurm.cancel(numbers)
    for folder in (job.out, job.data):
        _note_cancelled(folder, numbers)
    parts = [f"report {queued.report}"] * bool(queued.report)
    parts += [f"{len(runs)} run{'s' * (len(runs) > 1)} ({', '.join(sorted(runs.values()))})"] * bool(runs)
    if queued.data:
        parts.append(f"data set {queued.data}" if not waiting else
                     f"not the data set {queued.data}, for which {', '.join(waiting)} waits")
    if left:
        parts.append(f"not {', '.join(left)}, which belongs to the same array and may train other runs: scancel it")
    return f"{job.out}: cancelled: {', '.join(parts)}; a run that was training saves, and launched again it goes on"


def read_queued_jobs(job: JobFile, experiments: Sequence[Experiment]) -> QueuedJobs:
    """Return the jobs of a job file that are in SLURM's queue.

    A run belongs to the job that the record has, or to the job that holds its folder: the record does not have what was
    submitted with sbatch alone. This costs SLURM one query, or none if nothing was submitted.
    """
    record, data = read_record(job.out), read_record(job.data).get(DATA)
    holders = _holders(experiments)
    if not record and data is None and not holders:
        return QueuedJobs({})
    queue = slurm.read_queue()

    def is_queued(number: Any, name: str) -> bool:  # check the name too: numbers repeat after years
        return number in queue and queue[number].name.startswith(f"{name}-")

    report = record.get(REPORT)
    ours = {run_key(experiment.out) for experiment in experiments}
    queued = {run: number for run, number in record.get("runs", {}).items() if is_queued(number, "train")}
    queued = {**{run: number for run, number in holders.items() if number in queue}, **queued}
    return QueuedJobs(runs={run: number for run, number in queued.items() if run in ours},
                      report=report if is_queued(report, "report") else None,
                      data=data if is_queued(data, "preprocess") else None,
                      others={run: number for run, number in queued.items() if run not in ours})


def _holders(experiments: Sequence[Experiment]) -> dict[str, str]:
    """Return {run folder: job number} of the runs that a process of a SLURM job is training."""
    held = {run_key(experiment.out): read_lock(experiment.out) for experiment in experiments
            if is_held(experiment.out)}
    return {run: holder.job for run, holder in held.items() if holder is not None and holder.job}
