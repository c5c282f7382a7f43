"""Train a network on a data set, on one process or on many.

Reads RANK, WORLD_SIZE, LOCAL_RANK and MASTER_*: srun, torchrun and `hpc_vsr.launch` are three ways to set them; without
them it is one process. The same command again resumes from the newest valid checkpoint; a finished run says so.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

import torch

from hpc_vsr.config import Parser
from hpc_vsr.dataset import told_of_loaders
from hpc_vsr.distributed import join_ranks, number_of_ranks
from hpc_vsr.errors import InputError, exit_status
from hpc_vsr.experiment import Experiment, check_fit, read_experiment
from hpc_vsr.files import create_folder
from hpc_vsr.jobfile import OTHER_KEYS
from hpc_vsr.lock import Lock, only_writer
from hpc_vsr.manifest import read_manifest
from hpc_vsr.memory import keep_freed_memory
from hpc_vsr.signals import StopFlag
from hpc_vsr.sweep import SECTION, choose_point, expand, read_sweep, without_given
from hpc_vsr.trainer import Trainer
from hpc_vsr.training_plan import format_plan


def train(experiment: Experiment, stop: StopFlag) -> None:
    """Train until the last step, on all ranks of the job together, or until one of them is asked to `stop`.

    Raises
    ------
    InputError
        If the data set, the settings or what the run folder holds do not fit.
    Stopped
        After SIGTERM, SIGUSR2 or Ctrl-C, when a checkpoint has been written.
    """
    manifest = read_manifest(experiment.data)
    keep_freed_memory()
    with join_ranks(experiment.train.device) as ranks, contextlib.ExitStack() as held, told_of_loaders():
        check_fit(experiment, manifest, ranks.world_size)
        locks: list[Lock] = []

        def take_folder() -> None:
            create_folder(experiment.out)
            locks.append(held.enter_context(only_writer(experiment.out)))

        ranks.on_main(take_folder)
        torch.set_num_threads(ranks.num_threads)
        Trainer(experiment, manifest, ranks, locks[0] if locks else None).run(stop)


def build_parser() -> Parser:
    parser = Parser("train", __doc__)
    parser.add_settings(Experiment, "--config", also=(*OTHER_KEYS, SECTION))
    parser.add_argument("--point", type=int | None, default=None, help="which point of the job file's [sweep], from 0")
    parser.add_argument("--dry-run", action="store_true", help="print the settings, the plan and its size; do nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    experiment, arguments = read_experiment(build_parser(), argv)
    if arguments.point is not None and arguments.config is None:
        raise InputError("--point: names a run of a sweep; give the job file that has it with --config")
    where = str(arguments.config)
    grids = without_given(read_sweep(arguments.config), argv)
    experiment = choose_point(expand(experiment, grids, where), arguments.point, where)
    if arguments.dry_run:
        print(format_plan(experiment, number_of_ranks()))
        return
    with StopFlag() as stop:
        train(experiment, stop)


if __name__ == "__main__":
    sys.exit(exit_status(main))
