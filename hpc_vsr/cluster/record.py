"""The record of a job file's submitted jobs, ``.submitted.json``, and which of these jobs SLURM still has.

One record lies beside the runs, for the runs and their report, and one in the folder of the data set. With them, jobs
that are in the queue are not submitted a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_vsr.experiment.jobfile import JobFile
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.system import slurm
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import read_json

RECORD = ".submitted.json"
DATA, TRAINING, REPORT = "preprocessing", "training", "report"


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
    """Return {"runs": {run folder: job number}, "report": job number} of the last submission; empty if none."""
    try:
        record = read_json(folder / RECORD, "")
    except InputError:
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("runs", {}), dict) else {}


def read_queued_jobs(job: JobFile, experiments: Sequence[Experiment]) -> QueuedJobs:
    """Return the jobs of a job file that are in SLURM's queue.

    This costs SLURM one query, or none if nothing was submitted.
    """
    record, data = read_record(job.out), read_record(job.data).get(DATA)
    if not record and data is None:
        return QueuedJobs({})
    queue = slurm.read_queue()

    def is_queued(number: Any, name: str) -> bool:  # check the name too: numbers repeat after years
        return number in queue and queue[number].name.startswith(f"{name}-")

    report = record.get(REPORT)
    ours = {run_key(experiment.out) for experiment in experiments}
    queued = {run: number for run, number in record.get("runs", {}).items() if is_queued(number, "train")}
    return QueuedJobs(runs={run: number for run, number in queued.items() if run in ours},
                      report=report if is_queued(report, "report") else None,
                      data=data if is_queued(data, "preprocess") else None,
                      others={run: number for run, number in queued.items() if run not in ours})
