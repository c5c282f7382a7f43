"""Make the data set, train, evaluate and report a job file: on this machine, in this process, or on SLURM.

Training runs on `resources.nodes` x `resources.ranks_per_node` ranks. When it has ended, even if it failed, a second
job measures the network and writes the report. If the job file names a `recipe` and its data set is missing, the data
set is made first. With --cluster slurm the command submits all these jobs and returns.

A job file with a [sweep] stands for many runs. Each point of the grid is trained once: one after the other on this
machine, or as a job array on SLURM. One report compares all runs. Run `launch` again and it trains only the runs that
are unfinished and not in the queue. With --cancel it takes the jobs of the job file out of SLURM's queue instead.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from hpc_vsr.cluster.record import cancel_chain
from hpc_vsr.cluster.site import Cluster, add_site, fill_in, read_given_site
from hpc_vsr.experiment.jobfile import add_job_file, read_job
from hpc_vsr.system import slurm
from hpc_vsr.system.errors import InputError, exit_status
from hpc_vsr.system.parser import Parser


def build_parser() -> Parser:
    parser = Parser("launch", __doc__)
    add_job_file(parser)
    parser.add_argument("--cluster", type=Cluster | None, default=None,
                        help="local: run on this machine; debug: run in this process; slurm: submit to the cluster")
    add_site(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and all scripts; submit nothing")
    parser.add_argument("--cancel", action="store_true",
                        help="cancel the jobs of this job file: its data set, all its runs and its report")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = build_parser()
    job, experiments, arguments = read_job(parser, argv)
    if arguments.cancel:
        if not slurm.has_slurm():
            raise InputError("--cancel: squeue is not on this machine; log in to the cluster")
        print(cancel_chain(job, experiments))
        return
    if arguments.cluster is None:
        raise InputError("--cluster is missing: local, debug or slurm (see --help)")
    site = read_given_site(arguments, or_of_shell=arguments.cluster == "slurm")
    job = fill_in(job, site, parser)
    # imported late, because torch takes seconds that --help and a mistyped option need not wait
    from hpc_vsr.cluster.local import format_launch, launch

    if arguments.dry_run:
        print(format_launch(job, experiments, arguments.cluster, site))
        return
    launch(job, experiments, arguments.cluster, site)
    if arguments.cluster == "slurm":
        print(f"watch: {status_command(argv)}")


def status_command(argv: Sequence[str] | None) -> str:
    """Return the command that shows the runs submitted by this command line."""
    words, kept = iter(sys.argv[1:] if argv is None else argv), []
    for word in words:
        if word in ("--cluster", "--site", "--project"):
            next(words, None)
        elif not word.startswith(("--cluster=", "--site=", "--project=")):
            kept.append(word)
    return shlex.join(["python", "-m", "hpc_vsr.status", *kept, "--watch", "60"])


if __name__ == "__main__":
    sys.exit(exit_status(main))
