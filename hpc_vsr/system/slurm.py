"""Queries and commands of SLURM, used sparingly. The accounting is not used, because many clusters have none."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpc_vsr.system.errors import Failed

ANSWER_SECONDS = 30  # time for an answer of a busy controller
ACTIVE_STATES = ("RUNNING", "CONFIGURING", "STOPPED", "SUSPENDED")  # states of a job that SLURM is not about to end
JOB_PREFIXES = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "PMI_", "PMIX_")
KEPT_VARIABLES = ("SLURM_CONF",)


@dataclass(frozen=True)
class Queued:
    """A job in the queue.

    Attributes
    ----------
    job : str
        Job number; 12_3 is element 3 of array 12.
    state : str
        PENDING, RUNNING, COMPLETING and so on.
    reason : str
        Why it waits, in parentheses, or the nodes that it runs on.
    name : str
    after : str
        The jobs that it waits for, such as ``afterok:12(unfulfilled)``; empty if it waits for none.
    """

    job: str
    state: str
    reason: str
    name: str
    after: str = ""


def has_slurm() -> bool:
    return shutil.which("squeue") is not None


def read_queue() -> dict[str, Queued]:
    """Return {job number: job} of all unfinished jobs of this user, with one query.

    Raises
    ------
    Failed
        If SLURM does not answer.
    """
    text = run_command("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%R|%E|%j")
    fields = [line.strip().split("|", 4) for line in text.splitlines() if line.count("|") >= 4]
    return {job: Queued(job, state, reason, name, "" if after == "(null)" else after)
            for job, state, reason, after, name in fields}


def this_job() -> str | None:
    """Return the number of this process's SLURM job (12_3 is element 3 of array 12); None outside of a job."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID")


def restarts() -> int:
    """Return how often SLURM has restarted this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))


def state_of(job: str) -> str:
    """Return the state of a job, such as RUNNING, or COMPLETING if SLURM is ending it."""
    found = re.search(r"JobState=(\w+)", run_command("scontrol", "--oneliner", "show", "job", job))
    return found[1] if found else "UNKNOWN"


def requeue(job: str) -> None:
    """Send a running job back to the queue; SLURM ends its processes. A cancelled job stays cancelled."""
    run_command("scontrol", "requeue", "incomplete", job)


def cancel(jobs: Sequence[str]) -> None:
    run_command("scancel", *jobs)


@contextlib.contextmanager
def outside_of_job() -> Iterator[None]:
    """Hide this process's SLURM job from its children; a job that is submitted from it would inherit its binding."""
    if this_job() is None:
        yield
        return
    hidden = {name: value for name, value in os.environ.items()
              if name.startswith(JOB_PREFIXES) and name not in KEPT_VARIABLES}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def run_command(*command: str) -> str:
    """Return what a command of SLURM prints; raise `Failed` if it fails or does not answer in time."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{command[0]}: SLURM does not answer: {error}") from None
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[-1]
        raise Failed(f"{' '.join(command)}: {reason}")
    return done.stdout
