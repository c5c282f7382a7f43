"""Gathers what the state of a run or a job follows from: its files, the end of its log, and its place in the queue."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from hpc_vsr.cluster.logs import End, find_logs, read_end
from hpc_vsr.cluster.state import FAILED, JobState, RunState, decide_queued, decide_run, format_end
from hpc_vsr.experiment.progress import FINISHED, NOT_STARTED, STOPPED, read_progress
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system.files import file_time
from hpc_vsr.system.slurm import Queued

LOG_TIME = re.compile(r"^\S+ (?=failed: |stopped: )")  # a line of log.txt begins with its time


def find_run(run: RunFolder, experiment: Experiment | None, number: str, queue: Mapping[str, Queued] | None, logs: Path,
             data: JobState | None = None) -> RunState:
    """Return the state of a run.

    Parameters
    ----------
    run : RunFolder
    experiment : Experiment, optional
        The run that was asked for; without it the one that the folder holds.
    number : str
        The job that it was last submitted as; empty if there is none.
    queue : mapping or None
        SLURM's queue; None if there is none to ask.
    logs : Path
        The folder of its job's logs.
    data : JobState, optional
    """
    progress = read_progress(run, experiment)
    if experiment is not None and experiment.impossible:
        return RunState(run, FAILED, progress, "", experiment.impossible)
    held_by = progress.holder.job if progress.holder and progress.holder.job else ""
    queued = (queue or {}).get(number) or (queue or {}).get(held_by)
    has_left = number if queue is not None and queued is None else ""
    state, note, log = decide_run(progress, has_left, queued, lambda: _end_of(run, has_left, logs), data)
    if number and queue is None and state in (NOT_STARTED, STOPPED):
        note = f"it was submitted as job {number}, and SLURM cannot be asked for it here"
    job = "" if state in (FINISHED, NOT_STARTED) else queued.job if queued else number
    return RunState(run, state, progress, job, note, log)


def _end_of(run: RunFolder, number: str, logs: Path) -> End:
    """Return how the last training of a run ended: by its job's log, or by log.txt if that is younger."""
    paths = find_logs(logs, number) if number else []
    newest = max(map(file_time, paths), default=0.0)
    if number and file_time(run.log) <= newest + 1 or number and not paths:
        return read_end(paths)
    lines = run.log.read_text(errors="replace").splitlines()[-1:] if run.log.exists() else []
    said = LOG_TIME.sub("", lines[0]) if lines else ""
    if said.startswith(("failed: ", "stopped: ")):
        return End("failed" if said.startswith("failed") else "stopped", said, run.log)
    return read_end(paths) if number else End("stopped")


def find_data(folder: Path, number: str | None, is_missing: bool, queue: Mapping[str, Queued] | None, logs: Path
              ) -> JobState | None:
    """Return the state of the job that makes a data set; None if there is none to tell of."""
    if number is None or not is_missing and number not in (queue or {}):
        return None
    if number in (queue or {}):
        return JobState(f"data set {folder}", *_of_queued(queue[number]))
    if queue is None:
        return None
    return JobState(f"data set {folder}", FAILED, number, format_end(read_end(find_logs(logs, number)), number))


def find_report(page: Path, number: str | None, submitted: float, queue: Mapping[str, Queued] | None, logs: Path,
                changed: float = 0.0) -> JobState | None:
    """Return the state of a report.

    Parameters
    ----------
    page : Path
        Its index.html.
    number : str or None
        The job that it was last submitted as.
    submitted : float
        When that was, in seconds.
    queue : mapping or None
    logs : Path
    changed : float
        When a run of the report last changed: an older page does not show it.
    """
    if number in (queue or {}):
        return JobState("report", *_of_queued(queue[number]))
    written = file_time(page)
    if number is not None and queue is not None:
        end = read_end(find_logs(logs, number))
        if end.kind == "failed" or written < submitted:
            listed = f"; {page} has what there is" if written >= submitted else ""
            return JobState("report", FAILED, number, format_end(end, number) + listed)
    if not written:
        return None
    old = "; it is older than its runs: launch again" if written < changed else ""
    return JobState("report", FINISHED, number or "", f"{page}{old}")


def _of_queued(queued: Queued) -> tuple[str, str, str]:
    state, note = decide_queued(queued)
    return state, queued.job, note
