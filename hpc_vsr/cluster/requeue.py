"""Sends a SLURM job back to the queue when it is stopped. The number of requeues is limited, and each needs progress.

A *life* of a job lasts from its start to its end or its next requeue.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system import slurm
from hpc_vsr.system.errors import Failed, Stopped

PAUSES = (2, 5)  # seconds before SLURM is asked again after an error


@dataclass(frozen=True)
class Life:
    """One life of a training job, on its main rank.

    Attributes
    ----------
    run : RunFolder
    max_requeues : int
        How often the job may go back to the queue.
    """

    run: RunFolder
    max_requeues: int

    def run_until_stopped(self, train: Callable[[], None]) -> None:
        """Train; if the training is stopped, send the job back to the queue.

        Raises
        ------
        Stopped
            After the job was sent back to the queue, or if SLURM is ending it.
        Failed
            If the job was started too often, or made no step; then its next life would make none either.
        """
        # SLURM may have requeued the job by itself, more often than allowed
        restarts = slurm.restarts()
        if restarts > self.max_requeues:
            raise Failed(f"{self.run.path}: SLURM has restarted this job {restarts} times, and resources.max_requeues "
                         f"is {self.max_requeues}; look for the reason above, then launch again")
        # compare the checkpoints before and after: a life without a step would repeat forever
        before = self._newest_step()
        try:
            train()
        except Stopped as stopped:
            step = self._newest_step()
            if step <= before:
                raise Failed(f"{self.run.path}: stopped at step {step} without progress, so it was not sent back to "
                             "the queue; give it more time (resources.hours)") from None
            requeue_or_fail(f"{self.run.path}: saved at step {step}", self.max_requeues)
            raise stopped from None

    def _newest_step(self) -> int:
        """Return the step of the newest whole checkpoint, or 0."""
        checkpoints = self.run.checkpoints
        checkpoints.forget_checks()
        newest = checkpoints.newest()
        return checkpoints.step_of(newest) if newest else 0


def requeue_or_fail(where: str, max_requeues: int) -> None:
    """Send this job back to the queue, unless SLURM is already ending it.

    Raises
    ------
    Failed
        If it was requeued `max_requeues` times already, or SLURM refuses to requeue it.
    """
    job, restarts = slurm.this_job(), slurm.restarts()
    if restarts >= max_requeues:
        raise Failed(f"{where}; not sent back to the queue, because it was requeued {restarts} times already "
                     "(resources.max_requeues); launch again to continue")
    for pause in (*PAUSES, None):  # the controller is busy when many jobs end at once
        # someone else may have cancelled or requeued the job: do not touch it then
        state = _ask_state(job)
        if state is not None and state not in slurm.ACTIVE_STATES:
            print(f"{where}; job {job} is {state}: someone has cancelled or requeued it; if it does not come back, "
                  "launch again to continue", file=sys.stderr, flush=True)
            return
        print(f"{where}; job {job} goes back to the queue (requeue {restarts + 1} of {max_requeues})", file=sys.stderr,
              flush=True)
        try:
            slurm.requeue(job)
            return
        except Failed:
            if pause is None:
                raise
            time.sleep(pause)


def _ask_state(job: str) -> str | None:
    """Return the state of a job; None if SLURM does not answer."""
    try:
        return slurm.state_of(job)
    except Failed:
        return None
