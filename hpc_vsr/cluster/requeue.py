"""One life of a SLURM job, from its start to its end or to the next requeue: bounded, and only while it gets on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system import slurm as cluster
from hpc_vsr.system.errors import Failed, Stopped

PAUSES = (2, 5)  # seconds before SLURM is asked again


@dataclass(frozen=True)
class Life:
    """What the main rank does around the training.

    Attributes
    ----------
    run : RunFolder
    max_requeues : int
        How often the job may go back to the queue.
    """

    run: RunFolder
    max_requeues: int

    def live(self, train: Callable[[], None]) -> None:
        """Train; when that was stopped, send the job back to the queue.

        Raises
        ------
        Stopped
            When the job goes back, or SLURM ends it on its own.
        Failed
            If the job has been started too often, or made no step and so would not the next time.
        """
        restarts = cluster.restarts()
        if restarts > self.max_requeues:
            raise Failed(f"{self.run.path}: this job was started again {restarts} times, resources.max_requeues is "
                         f"{self.max_requeues}; look for the reason above, then launch again")
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
        checkpoints = self.run.checkpoints
        checkpoints.look_again()
        newest = checkpoints.newest()
        return checkpoints.step_of(newest) if newest else 0


def go_back(where: str, max_requeues: int) -> None:
    """Send this job back to the queue, unless it is being ended, or was there too often already.

    Raises
    ------
    Failed
        If it was there `max_requeues` times, or SLURM does not take it.
    """
    job, restarts = cluster.this_job(), cluster.restarts()
    if restarts >= max_requeues:
        raise Failed(f"{where}; not sent back to the queue: it was there {restarts} times (resources.max_requeues); "
                     "launch again to go on")
    for pause in (*PAUSES, None):  # its controller may be busy just when many jobs end
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
    try:
        return cluster.state_of(job)
    except Failed:
        return None
