"""What SLURM says of jobs. Few questions, and none to its accounting, which many clusters do not have."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpc_vsr.system.errors import Failed

PATIENCE_SECONDS = 30  # a busy controller takes its time
GOING = ("RUNNING", "CONFIGURING", "STOPPED", "SUSPENDED")  # states of a job that SLURM is not about to end
PREFIXES = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "PMI_", "PMIX_")
KEPT = ("SLURM_CONF",)


@dataclass(frozen=True)
class Queued:
    """A job in the queue.

    Attributes
    ----------
    job : str
        Its number; 12_3 is element 3 of the array 12.
    state : str
        PENDING, RUNNING, COMPLETING and so on.
    reason : str
        Why it waits, or the nodes that it runs on.
    name : str
    """

    job: str
    state: str
    reason: str
    name: str


def has_slurm() -> bool:
    return shutil.which("squeue") is not None


def read_queue() -> dict[str, Queued]:
    """{job number: job} of every job of this user that has not ended, in one query.

    Raises
    ------
    Failed
        If SLURM does not answer.
    """
    text = _ask("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%R|%j")
    jobs = [Queued(*line.strip().split("|", 3)) for line in text.splitlines() if line.count("|") >= 3]
    return {job.job: job for job in jobs}


def this_job() -> str | None:
    """The number of the SLURM job that this process belongs to; 12_3 is element 3 of the array 12."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """How often SLURM has started this job again."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def state_of(job: str) -> str:
    """RUNNING, or COMPLETING and others for a job that is being ended."""
    found = re.search(r"JobState=(\w+)", _ask("scontrol", "--oneliner", "show", "job", job))
    return found[1] if found else "UNKNOWN"


def requeue(job: str) -> None:
    """Send a job back to the queue, if it runs: one that was cancelled meanwhile stays so. SLURM ends its processes."""
    _ask("scontrol", "requeue", "incomplete", job)


def cancel(jobs: Sequence[str]) -> None:
    _ask("scancel", *jobs)


@contextlib.contextmanager
def outside_of_job() -> Iterator[None]:
    """Hide from child processes that this one runs in a job: what is submitted would inherit its binding."""
    if this_job() is None:
        yield
        return
    hidden = {name: value for name, value in os.environ.items() if name.startswith(PREFIXES) and name not in KEPT}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{command[0]}: SLURM does not answer: {error}") from None
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[-1]
        raise Failed(f"{' '.join(command)}: {reason}")
    return done.stdout
