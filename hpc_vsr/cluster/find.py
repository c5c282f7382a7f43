"""Gathers what the state of a run or a job follows from: its files, the end of its log, and its place in the queue."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from hpc_vsr.cluster.logs import End, find_logs, read_end
from hpc_vsr.cluster.record import DATA, is_cancelled, read_record
from hpc_vsr.cluster.state import FAILED, JobState, RunState, decide_queued, decide_run, format_end
from hpc_vsr.data.manifest import NAME as MANIFEST
from hpc_vsr.experiment.progress import FINISHED, NOT_STARTED, STOPPED, read_progress
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system.files import file_time
from hpc_vsr.system.slurm import Queued

LOG_TIME = re.compile(r"^\S+ (?=failed: |stopped: )")  # a line of log.txt begins with its time


def find_run(run: RunFolder, experiment: Experiment | None, number: str, queue: Mapping[str, Queued] | None, logs: Path,
             data: JobState | None = None, cancelled: bool = False) -> RunState:
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
    cancelled : bool
        Whether `launch --cancel` has cancelled that job.
    """
    progress = read_progress(run, experiment)
    if experiment is not None and experiment.impossible:
        return RunState(run, FAILED, progress, "", experiment.impossible)
    held_by = progress.holder.job if progress.holder and progress.holder.job else ""
    queued = (queue or {}).get(number) or (queue or {}).get(held_by)
    has_left = number if queued is None and (cancelled or queue is not None) else ""
    state, note, log = decide_run(progress, has_left, queued, lambda: _end_of(run, has_left, logs, cancelled), data)
    if number and queue is None and not cancelled and state in (NOT_STARTED, STOPPED):
        note = f"it was submitted as job {number}, and SLURM cannot be asked for it here"
    job = "" if state in (FINISHED, NOT_STARTED) else queued.job if queued else number
    return RunState(run, state, progress, job, note, log)


def _end_of(run: RunFolder, number: str, logs: Path, cancelled: bool) -> End:
    """Return how the last training of a run ended: by its job's log, or by log.txt if that is younger."""
    end = _end_in_logs(run, number, logs)
    silent = end.kind in ("silent", "none")
    return End("cancelled", f"job {number} was cancelled", end.log) if cancelled and silent else end


def _end_in_logs(run: RunFolder, number: str, logs: Path) -> End:
    paths = find_logs(logs, number) if number else []
    newest = max(map(file_time, paths), default=0.0)
    if number and file_time(run.log) <= newest + 1 or number and not paths:
        return read_end(paths)
    lines = run.log.read_text(errors="replace").splitlines()[-1:] if run.log.exists() else []
    said = LOG_TIME.sub("", lines[0]) if lines else ""
    if said.startswith(("failed: ", "stopped: ")):
        return End("failed" if said.startswith("failed") else "stopped", said, run.log)
    return read_end(paths) if number else End("stopped")


def find_data(folder: Path, queue: Mapping[str, Queued] | None, logs: Path) -> JobState | None:
    """Return the state of the job that makes a data set; None if there is none to tell of."""
    record, is_missing = read_record(folder), not (folder / MANIFEST).exists()
    number = record.get(DATA)
    if number is None or not is_missing and number not in (queue or {}):
        return None
    if number in (queue or {}):
        return JobState(f"data set {folder}", *_of_queued(queue[number]))
    end = read_end(find_logs(logs, number))
    if is_cancelled(record, number) and end.kind != "failed":
        return JobState(f"data set {folder}", *_of_cancelled(end, number))
    if queue is None:
        return None
    return JobState(f"data set {folder}", FAILED, number, format_end(end, number))


def find_report(page: Path, number: str | None, submitted: float, queue: Mapping[str, Queued] | None, logs: Path,
                changed: float = 0.0, cancelled: bool = False) -> JobState | None:
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
    cancelled : bool
        Whether `launch --cancel` has cancelled that job.
    """
    if number in (queue or {}):
        return JobState("report", *_of_queued(queue[number]))
    written = file_time(page)
    if number is not None and (cancelled or queue is not None):
        end = read_end(find_logs(logs, number))
        if cancelled and end.kind != "failed" and written < submitted:
            return JobState("report", *_of_cancelled(end, number))
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


def _of_cancelled(end: End, number: str) -> tuple[str, str, str]:
    return STOPPED if end.kind == "stopped" else NOT_STARTED, number, "it was cancelled"
