"""Trains an experiment: joins the ranks, locks the run folder and runs the trainer."""

from __future__ import annotations

import contextlib

import torch

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.patches import told_of_loaders
from hpc_vsr.experiment.checks import check_fit
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.system.files import create_folder
from hpc_vsr.system.lock import Lock, only_writer
from hpc_vsr.system.memory import keep_freed_memory
from hpc_vsr.system.ranks import join_ranks
from hpc_vsr.system.signals import StopFlag
from hpc_vsr.training.trainer import Trainer


def train(experiment: Experiment, stop: StopFlag) -> None:
    """Train on all ranks of the job, until the last step or until one rank is asked to `stop`.

    Raises
    ------
    InputError
        If the data set, the settings and the run folder do not fit each other.
    Stopped
        After SIGTERM, SIGUSR2 or Ctrl-C, and after a checkpoint was written.
    """
    manifest = read_manifest(experiment.data)
    keep_freed_memory()
    with join_ranks(experiment.train.device) as ranks, contextlib.ExitStack() as held, told_of_loaders():
        check_fit(experiment, manifest, ranks.world_size)
        # the main rank locks the run folder until all ranks are done
        locks: list[Lock] = []

        def take_folder() -> None:
            create_folder(experiment.out)
            locks.append(held.enter_context(only_writer(experiment.out)))

        ranks.on_main(take_folder)
        torch.set_num_threads(ranks.num_threads)
        Trainer(experiment, manifest, ranks, locks[0] if locks else None).run(stop)
