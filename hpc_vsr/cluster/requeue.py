"""One life of a SLURM job, from its start to its end or its next requeue; requeues are limited and need progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system import slurm as cluster
from hpc_vsr.system.errors import Failed, Stopped

PAUSES = (2, 5)  # seconds before SLURM is asked again after an error


@dataclass(frozen=True)
class Life:
    """One life of a training job, as its main rank lives it.

    Attributes
    ----------
    run : RunFolder
    max_requeues : int
        How often the job may go back to the queue.
    """

    run: RunFolder
    max_requeues: int

    def live(self, train: Callable[[], None]) -> None:
        """Train; if the training was stopped, send the job back to the queue.

        Raises
        ------
        Stopped
            If the job goes back to the queue, or SLURM is ending it.
        Failed
            If the job has been started too often, or made no step and so would make none the next time.
        """
        # SLURM may have requeued the job by itself, more often than allowed
        restarts = cluster.restarts()
        if restarts > self.max_requeues:
            raise Failed(f"{self.run.path}: this job was started again {restarts} times, resources.max_requeues is "
                         f"{self.max_requeues}; look for the reason above, then launch again")
        # compare the checkpoints before and after: a life without a step must not repeat
        before = self._step()
        try:
            train()
        except Stopped as stopped:
            step = self._step()
            if step <= before:
                raise Failed(f"{self.run.path}: stopped at step {step} without one step of progress; not sent back to "
                             "the queue: give it more time (resources.hours)") from None
            go_back(f"{self.run.path}: saved at step {step}", self.max_requeues)
            raise stopped from None

    def _step(self) -> int:
        """Return the step of the newest whole checkpoint, 0 without one."""
        checkpoints = self.run.checkpoints
        checkpoints.look_again()
        newest = checkpoints.newest()
        return checkpoints.step_of(newest) if newest else 0


def go_back(where: str, max_requeues: int) -> None:
    """Send this job back to the queue, unless SLURM is ending it or it has gone back too often.

    Raises
    ------
    Failed
        If it has gone back `max_requeues` times, or SLURM refuses to requeue it.
    """
    job, restarts = cluster.this_job(), cluster.restarts()
    if restarts >= max_requeues:
        raise Failed(f"{where}; not sent back to the queue: it was there {restarts} times (resources.max_requeues); "
                     "launch again to go on")
    for pause in (*PAUSES, None):  # the controller may be busy just when many jobs end
        # a job that is ending was cancelled or requeued by someone else: leave it
        state = _state(job)
        if state is not None and state not in cluster.GOING:
            print(f"{where}; job {job} is {state}: cancelled, or requeued from outside; if it does not come back, "
                  "launch again to go on", file=sys.stderr, flush=True)
            return
        print(f"{where}; job {job} goes back to the queue (requeue {restarts + 1} of {max_requeues})", file=sys.stderr,
              flush=True)
        try:
            cluster.requeue(job)
            return
        except Failed:
            if pause is None:
                raise
            time.sleep(pause)


def _state(job: str) -> str | None:
    """Return the state of a job; None if SLURM does not answer."""
    try:
        return cluster.state_of(job)
    except Failed:
        return None
