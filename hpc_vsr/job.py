"""Run the training of a SLURM job on all its ranks, or the evaluation and the report.

The scripts in slurm/ run this command with one process for each rank; `hpc_vsr.launch` submits the same work by itself:

    srun python -m hpc_vsr job train --config jobs/delta.toml
    srun --nodes=1 --ntasks=1 python -m hpc_vsr job report --config jobs/delta.toml

Before its time limit, or when it is preempted, a training saves a checkpoint and sends its job back to the queue. When
the job starts again, it continues from there.
"""

from __future__ import annotations

import signal
import sys
import typing
from collections.abc import Sequence
from typing import Any, Literal

from hpc_vsr.cluster.parameters import TRAINING, Stage, format_job
from hpc_vsr.cluster.record import record_scripts
from hpc_vsr.cluster.site import fill_in, read_site_of_shell
from hpc_vsr.experiment.jobfile import JobFile, add_job_file, read_job
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.experiment.sweep import choose_point
from hpc_vsr.system.errors import CAN_CONTINUE, Stopped, exit_status
from hpc_vsr.system.parser import Parser

if typing.TYPE_CHECKING:
    from hpc_vsr.cluster.jobs import ReportJob


def __getattr__(name: str) -> Any:
    """Return a class that has moved to `hpc_vsr.cluster.jobs`; jobs queued by earlier versions import it from here."""
    if name in ("PreprocessJob", "TrainJob", "ReportJob"):
        from hpc_vsr.cluster import jobs

        return getattr(jobs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _evaluate_and_report(report: ReportJob, max_requeues: int) -> None:
    """Evaluate and report; if the time limit comes first, send the job back to the queue.

    Its next life does not measure a run a second time.
    """
    from hpc_vsr.cluster.requeue import requeue_or_fail

    def stop(*_) -> None:
        raise Stopped(f"{report.out}: not finished; the same command continues")

    signal.signal(signal.SIGUSR2, stop)
    try:
        report.evaluate_and_report()
    except Stopped:
        requeue_or_fail(f"{report.out}: not finished", max_requeues)
        raise


def build_parser() -> Parser:
    parser = Parser("job", __doc__)
    parser.add_argument("action", type=Literal["train", "report", "points", "options", "record"],
                        help="train: train on all ranks; report: evaluate and report all runs, on one rank; points: "
                             "print the number of runs; options: print what a job asks for as options of sbatch; "
                             "record: note the jobs of --submitted for status and launch")
    parser.add_argument("--stage", type=Stage, default=TRAINING, help="the job whose options are printed")
    add_job_file(parser)
    parser.add_argument("--point", type=int | None, default=None, help="which run of a [sweep] to train, from 0")
    parser.add_argument("--submitted", type=str, default="", metavar="JOBS",
                        help="of record: preprocessing=N,training=N,report=N, the numbers of the jobs")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = build_parser()
    job, experiments, arguments = read_job(parser, argv)
    if arguments.action == "points":
        print(len(experiments))
    elif arguments.action == "options":
        site = read_site_of_shell()
        print(format_job(arguments.stage, fill_in(job, site, parser).resources, site))
    elif arguments.action == "record":
        record_scripts(job, experiments, arguments.submitted)
    else:
        _run_action(job, experiments, arguments)


def _run_action(job: JobFile, experiments: list[Experiment], arguments: Any) -> None:
    # imported late, because torch takes seconds that --help and a mistyped option need not wait
    from hpc_vsr.cluster.jobs import ReportJob, TrainJob, environment_of_step

    if arguments.action == "report":
        _evaluate_and_report(ReportJob(tuple(experiments), job.report), job.resources.max_requeues)
    else:
        experiment = choose_point(experiments, arguments.point, str(arguments.config))
        environment = environment_of_step(experiment.train.device)
        status = TrainJob(experiment, job.resources.max_requeues).run(environment)
        # another rank must not end with an error: srun would kill the main rank while it asks for the requeue
        if environment.global_rank == 0 or status != CAN_CONTINUE:
            sys.exit(status)


if __name__ == "__main__":
    sys.exit(exit_status(main))
