"""Train a network on a data set, in one process or in many.

Several processes find each other by the variables RANK, WORLD_SIZE, LOCAL_RANK and MASTER_*. `hpc_vsr.launch`, torchrun
and `hpc_vsr.job` under srun set them; without them the training is one process. Run the same command again and it
resumes from the newest valid checkpoint, or says that the run is finished.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hpc_vsr.experiment.jobfile import add_job_file, read_job
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.experiment.sweep import choose_point
from hpc_vsr.system.errors import InputError, exit_status
from hpc_vsr.system.parser import Parser
from hpc_vsr.system.signals import StopFlag


def build_parser() -> Parser:
    parser = Parser("train", __doc__)
    add_job_file(parser, Experiment)
    parser.add_argument("--point", type=int | None, default=None, help="which run of the job file's [sweep], from 0")
    parser.add_argument("--dry-run", action="store_true", help="print the settings, plan and size; train nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    _, experiments, arguments = read_job(build_parser(), argv)
    if arguments.point is not None and arguments.config is None:
        raise InputError("--point: is a run of a sweep; name the job file of that sweep with --config")
    experiment = choose_point(experiments, arguments.point, str(arguments.config))
    with StopFlag() as stop:
        # imported late, because torch takes seconds that --help and a mistyped option need not wait
        from hpc_vsr.system.ranks import number_of_ranks
        from hpc_vsr.training.plan import format_plan
        from hpc_vsr.training.train import train

        if arguments.dry_run:
            print(format_plan(experiment, number_of_ranks()))
            return
        train(experiment, stop)


if __name__ == "__main__":
    sys.exit(exit_status(main))
