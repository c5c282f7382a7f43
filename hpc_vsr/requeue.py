"""One life of a SLURM job, from its start to its end or to the next requeue: bounded, and only while it gets on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hpc_vsr import cluster
from hpc_vsr.checkpoint import newest_valid
from hpc_vsr.errors import Failed, Stopped
from hpc_vsr.runs import RunFolder

RUNNING = ("RUNNING", "CONFIGURING", "STOPPED")  # states in which SLURM has not itself decided what becomes of the job


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
            self._go_back(before, restarts)
            raise stopped from None

    def _go_back(self, before: int, restarts: int) -> None:
        job, step = cluster.this_job(), self._step()
        if step <= before:
            raise Failed(f"{self.run.path}: stopped at step {step} without one step of progress; not sent back to the "
                         "queue: give it more time (resources.hours)")
        if restarts >= self.max_requeues:
            raise Failed(f"{self.run.path}: saved at step {step}; not sent back to the queue: it was there "
                         f"{restarts} times (resources.max_requeues); launch again to go on")
        state = self._patiently(lambda: cluster.state_of(job))
        if state not in RUNNING:  # cancelled, or requeued from outside: not ours to undo
            print(f"{self.run.path}: job {job} is {state}: SLURM decides whether it goes on", file=sys.stderr,
                  flush=True)
            return
        print(f"{self.run.path}: job {job} goes back to the queue at step {step} "
              f"(requeue {restarts + 1} of {self.max_requeues})", file=sys.stderr, flush=True)
        self._patiently(lambda: cluster.requeue(job))

    @staticmethod
    def _patiently(ask: Callable[[], Any]) -> Any:
        """Ask SLURM up to three times: its controller may be busy just when many jobs end."""
        for pause in (2, 5):
            try:
                return ask()
            except Failed:
                time.sleep(pause)
        return ask()

    def _step(self) -> int:
        newest = newest_valid(self.run.checkpoints)
        return int(newest.stem.removeprefix("step-")) if newest else 0
