"""A record of the submitted jobs of a job file, and which of them SLURM still has.

The record is ``.submitted.json``: one beside the runs for the runs and the report, one in the folder of a data set. It
keeps jobs that are in the queue from being submitted a second time.
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
class Queue:
    """The jobs of a job file that SLURM has in its queue.

    Attributes
    ----------
    runs : dict
        {run folder: job number}.
    report, data : str or None
        Job numbers.
    others : dict
        Runs that were launched into the same folder with other settings: {run folder: job number}.
    """

    runs: dict[str, str]
    report: str | None = None
    data: str | None = None
    others: dict[str, str] = field(default_factory=dict)


def run_key(folder: Path) -> str:
    """Return the name of a run folder in the record, which does not depend on how its path is spelt."""
    return str(folder.absolute().resolve())


def read_record(folder: Path) -> dict[str, Any]:
    """Return {"runs": {run folder: job number}, "report": job number} of the last submission; empty if none."""
    try:
        record = read_json(folder / RECORD, "")
    except InputError:
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("runs", {}), dict) else {}


def read_queue(job: JobFile, experiments: Sequence[Experiment]) -> Queue:
    """Return the jobs of a job file that are in SLURM's queue, with one query; with none if nothing was submitted."""
    record, data = read_record(job.out), read_record(job.data).get(DATA)
    if not record and data is None:
        return Queue({})
    queue = slurm.read_queue()

    def there(number: Any, name: str) -> bool:  # numbers repeat after years, or on another cluster
        return number in queue and queue[number].name.startswith(f"{name}-")

    report = record.get(REPORT)
    ours = {run_key(experiment.out) for experiment in experiments}
    queued = {run: number for run, number in record.get("runs", {}).items() if there(number, "train")}
    return Queue({run: number for run, number in queued.items() if run in ours},
                 report if there(report, "report") else None, data if there(data, "preprocess") else None,
                 {run: number for run, number in queued.items() if run not in ours})
