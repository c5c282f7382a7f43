"""A job as SLURM's queue has it, for tests without a SLURM."""

from __future__ import annotations

from hpc_vsr.system.slurm import Queued


def queued(reason: str, state: str = "PENDING", after: str = "") -> Queued:
    return Queued("12_3", state, reason, "train-x", after)
