"""Decides the state of every run and job of a job file, from its files, its record, its logs and SLURM's queue.

This is the only place that decides: `hpc_vsr.experiment.progress` says what the files of a run folder mean,
`hpc_vsr.cluster.find` gathers the rest, and `status`, `launch` and the report job show what is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpc_vsr.cluster.logs import End
from hpc_vsr.cluster.reasons import waits_for, why_never
from hpc_vsr.experiment.progress import DIVERGED, FINISHED, NOT_STARTED, OTHER, RUNNING, STOPPED, Progress
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system.slurm import Queued

WAITING, NEVER, FAILED = "waiting", "never starts", "failed"
# in the order in which they are decided; docs/slurm.md has this table
STATES = {
    FINISHED: "the newest checkpoint is of the last step, and it was validated",
    WAITING: "its job is in SLURM's queue and may start",
    NEVER: "its job is in SLURM's queue, for a reason that does not pass by itself",
    RUNNING: "SLURM runs its job, or a process of this machine holds the run folder",
    DIVERGED: "the last losses or gradients were not finite",
    FAILED: "it has ended before its last step, and the last line of its log is an error, or there is none",
    STOPPED: "it has ended before its last step by a signal, a time limit or a cancellation",
    NOT_STARTED: "it was not submitted, or cancelled while it waited, and has made no step",
}
GOING = (WAITING, RUNNING)


@dataclass(frozen=True)
class JobState:
    """The state of a job that is no training: the making of a data set, or a report.

    Attributes
    ----------
    what : str
        "data set" or "report".
    state : str
        A key of `STATES`.
    number : str
    note : str
        What it waits for, why it has failed, or where its result is.
    """

    what: str
    state: str
    number: str
    note: str

    def __str__(self) -> str:
        job = f" (job {self.number})" if self.number and self.state != FINISHED else ""
        return f"{self.what}: {self.state}{job}{f': {self.note}' if self.note else ''}"


@dataclass(frozen=True)
class RunState:
    """The state of a run, and what the table of `status` shows of it.

    Attributes
    ----------
    run : RunFolder
    state : str
        A key of `STATES`.
    progress : Progress
    job : str
        Number of its SLURM job; empty if it has none or is finished.
    note : str
        What it waits for, where it runs, how it goes on, or the line that says why it has failed.
    log : Path or None
        The log that tells more.
    """

    run: RunFolder
    state: str
    progress: Progress
    job: str
    note: str
    log: Path | None = None

    @property
    def steps_per_second(self) -> float | None:
        """Steps per second while it runs; None if that is not known."""
        progress = self.progress
        if self.state != RUNNING or not (progress.samples_per_second and progress.batch_size):
            return None
        return progress.samples_per_second / progress.batch_size

    @property
    def words(self) -> str:
        """The state in words: 'stopped at step 40', 'finished with other settings'."""
        return self.kind.replace(STOPPED, f"{STOPPED} at step {self.progress.step}", 1)

    @property
    def kind(self) -> str:
        """The state without its step, to be counted."""
        return f"{self.state} {OTHER}" if self.progress.other and self.state != NOT_STARTED else self.state

    @property
    def sentence(self) -> str:
        """The state with its reason, for a line of its own: 'failed: job 12_3: failed: ... (logs/...)'."""
        job = f"job {self.job}: " if self.job and self.state in (FAILED, NEVER, WAITING) else ""
        return f"{self.words}{f': {job}{self.note}' if self.note else ''}"


def decide_run(progress: Progress, number: str, queued: Queued | None, end: Callable[[], End], data: JobState | None
               ) -> tuple[str, str, Path | None]:
    """Return the state of a run, a note and the log to read.

    Parameters
    ----------
    progress : Progress
        What its folder says.
    number : str
        The job that it was submitted as, if that is known to have left the queue; else empty.
    queued : Queued or None
        Its job in the queue.
    end : callable
        Reads how its job ended.
    data : JobState or None
        The job that makes its data set, if that is missing.
    """
    other = "; ".join(progress.other)
    if progress.state == FINISHED and (queued is None or not progress.other):
        return FINISHED, other, None
    if queued is not None:
        return (*decide_queued(queued, data), None)
    if progress.state == RUNNING:
        return RUNNING, "; ".join(filter(None, [str(progress.holder) if progress.holder else "", other])), None
    if progress.state == DIVERGED:
        return DIVERGED, f"{progress.divergence}; lower train.lr, or train.precision fp32 or bf16; then delete its " \
                         "folder and launch again", None
    found = end()
    if number and found.kind == "none" and data is not None and data.state == FAILED:
        return FAILED, f"its data set was not made: job {data.number}: {data.note}", None
    if found.kind == "failed" or number and found.kind in ("silent", "none"):
        return FAILED, "; ".join(filter(None, [format_end(found, number), other])), found.log
    if progress.state == NOT_STARTED and (not number or found.kind == "cancelled"):
        return NOT_STARTED, f"{found.line}; launch again" if found.kind == "cancelled" else other, None
    why = f" ({found.line})" if found.line else ""
    goes_on = f"launch it with its own settings, or choose another --out{why}; {other}" if other else \
        f"goes on when it is launched again{why}"
    return STOPPED, goes_on, found.log


def decide_queued(queued: Queued, data: JobState | None = None) -> tuple[str, str]:
    """Return the state of a job in the queue, and what it waits for, why it never starts, or where it runs."""
    if queued.state == "COMPLETING":
        return RUNNING, f"SLURM is ending it on {queued.reason}"
    if queued.state not in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"):
        return RUNNING, queued.reason
    never = why_never(queued.reason)
    if never is not None:
        failed = f": job {data.number}: {data.note}" if data is not None and data.state == FAILED else ""
        return NEVER, f"{never}{failed}; cancel it with 'scancel {queued.job}', mend that and launch again"
    if data is not None and data.number and data.number in queued.after:
        return WAITING, f"for its data set, job {data.number}"
    return WAITING, waits_for(queued.reason, queued.job)


def format_end(end: End, number: str) -> str:
    """Return how a job failed, with the log that says it."""
    if end.kind == "none":
        return f"it left no log; see 'scontrol show job {number}'"
    if end.kind == "silent":
        return f"it ended without a word, killed perhaps; see {end.log}"
    return f"{end.line} ({end.log})"
