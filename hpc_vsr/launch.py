"""Train, evaluate and report a job file, through submitit: on this machine, in this process, or on a SLURM cluster.

Training runs on `resources.nodes` x `resources.ranks_per_node` ranks; when it has ended, however it ended, a second job
measures the network and writes the report. With --cluster slurm both are submitted and the command returns.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import submitit
from submitit.slurm.slurm import SlurmExecutor

from hpc_vsr.config import Parser
from hpc_vsr.errors import BAD_INPUT, CAN_CONTINUE, DONE, InputError, Stopped, exit_status
from hpc_vsr.experiment import Experiment, check_fit, format_plan, read_experiment
from hpc_vsr.files import create_folder
from hpc_vsr.job import ReportJob, TrainJob
from hpc_vsr.manifest import read_manifest
from hpc_vsr.runs import RunFolder
from hpc_vsr.slurm import Resources, Site, read_site, report_parameters, train_parameters

Cluster = Literal["local", "debug", "slurm"]
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class LaunchSettings(Experiment):
    """A job file with the resources that it asks for."""

    resources: Resources = dataclasses.field(default_factory=Resources)

    @property
    def experiment(self) -> Experiment:
        return Experiment(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Experiment)})


def script_text(folder: Path, parameters: dict[str, Any]) -> str:
    """The sbatch script that submitit would submit; needs no SLURM."""

    class Text(SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            return 1  # pretend that srun is there

    executor = Text(folder)
    executor.update_parameters(**parameters)
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def launch(settings: LaunchSettings, cluster: Cluster, site: Site) -> None:
    """Submit training and report; locally also wait for them, show the log and print the table.

    Raises
    ------
    InputError
        If the data set is not complete, the cluster is not there, or a job says that its input is wrong.
    Stopped
        If training was asked to stop and can continue.
    """
    check_fit(settings.experiment, read_manifest(settings.data),
              settings.resources.nodes * settings.resources.ranks_per_node)
    run = RunFolder(settings.out)
    logs = Path("logs") / run.name
    create_folder(logs)
    if cluster == "slurm":
        try:
            _submit_to_slurm(settings, site, logs)
        except submitit.core.utils.FailedJobError as error:  # what sbatch answers: a wrong partition, account, size
            raise InputError(f"sbatch refused the job: {str(error).strip().splitlines()[-1]}; "
                             "check --site and [resources]") from None
        return
    resources = settings.resources
    if resources.nodes > 1:
        raise InputError(f"resources.nodes: {resources.nodes} nodes need --cluster slurm")
    experiment = settings.experiment
    training = _local_executor(cluster, logs, resources.ranks_per_node, resources.gpus_per_node, resources.hours)
    _wait(training.submit(TrainJob(experiment)), "training", logs, cluster)
    report = _local_executor(cluster, logs, 1, min(1, resources.gpus_per_node), resources.hours)
    _wait(report.submit(ReportJob(experiment)), "report", logs, cluster)
    print((run.report / "report.md").read_text(encoding="utf-8"))
    print(f"report: {run.report / 'index.html'}")


def _submit_to_slurm(settings: LaunchSettings, site: Site, logs: Path) -> None:
    try:
        training = submitit.SlurmExecutor(logs)
    except RuntimeError:
        raise InputError("--cluster slurm: srun is not on this machine; log in to the cluster, "
                         "or use --cluster local, or --dry-run to see the scripts") from None
    run = RunFolder(settings.out)
    training.update_parameters(**train_parameters(run.name, settings.resources, site))
    train_job = training.submit(TrainJob(settings.experiment))
    report = submitit.SlurmExecutor(logs)
    report.update_parameters(**report_parameters(run.name, settings.resources, site, train_job.job_id))
    report_job = report.submit(ReportJob(settings.experiment))
    print(f"training {train_job.job_id} and report {report_job.job_id} are submitted; logs in {logs}/\n"
          f"watch: squeue -j {train_job.job_id},{report_job.job_id}; tail -f {train_job.paths.stderr}\n"
          f"report: {run.report / 'index.html'}")


def _local_executor(cluster: Cluster, logs: Path, num_tasks: int, num_gpus: int, hours: float) -> submitit.Executor:
    if cluster == "debug":
        return submitit.DebugExecutor(logs)
    executor = submitit.LocalExecutor(logs)
    # submitit shows a local job as many GPUs as it asks for, none if it does not ask
    executor.update_parameters(tasks_per_node=num_tasks, gpus_per_node=num_gpus,
                               timeout_min=max(1, round(hours * 60)), stderr_to_stdout=True)
    return executor


def _wait(job: submitit.Job, stage: str, logs: Path, cluster: Cluster) -> None:
    """Show the log of the job's first rank while it runs, and raise what its exit statuses mean."""
    shown = 0
    try:
        while cluster == "local" and not job.done():
            shown = _show_from(job.paths.stdout, shown)
            time.sleep(POLL_SECONDS)
        statuses = job.results()
    except submitit.core.utils.UncompletedJobError:
        raise RuntimeError(f"{stage}: ended without a result; see {job.paths.stdout}") from None
    except KeyboardInterrupt:
        job.cancel()
        raise
    finally:
        if cluster == "local":
            _show_from(job.paths.stdout, shown)
    if BAD_INPUT in statuses:
        raise InputError(f"{stage}: {_last_error(job.paths.stdout) or f'see {logs}'}")
    if CAN_CONTINUE in statuses:
        raise Stopped(f"{stage}: saved; the same command continues")
    if any(status != DONE for status in statuses):
        raise RuntimeError(f"{stage}: failed on rank {[status != DONE for status in statuses].index(True)}; "
                           f"see {logs}")


def _show_from(log: Path, position: int) -> int:
    """Print what a log has gained since `position`, without submitit's own lines; return the new position."""
    if not log.exists():
        return position
    with log.open("rb") as stream:
        stream.seek(position)
        text = stream.read()
    whole = text[: text.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        if not line.startswith(("submitit ", "error: ")):
            print(line, file=sys.stderr, flush=True)
    return position + len(whole)


def _last_error(log: Path) -> str:
    """What a stage said was wrong, if its log has it."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else ""


def format_scripts(settings: LaunchSettings, cluster: Cluster, site: Site) -> str:
    """The plan, and on SLURM the sbatch script of every job, as text for --dry-run."""
    if cluster != "slurm":
        resources = settings.resources
        check_fit(settings.experiment, read_manifest(settings.data), resources.ranks_per_node)
        return (f"{format_plan(settings.experiment)}\n"
                f"launch   {resources.ranks_per_node} ranks on this machine ({cluster}), "
                f"{len(os.sched_getaffinity(0))} cores; then evaluation and report")
    run = RunFolder(settings.out).name
    logs = Path("logs") / run
    scripts = {"training": train_parameters(run, settings.resources, site),
               "report": report_parameters(run, settings.resources, site, after="TRAINING")}
    return "\n".join(f"### {name}\n{script_text(logs, parameters)}" for name, parameters in scripts.items())


def build_parser() -> Parser:
    parser = Parser("launch", __doc__)
    parser.add_settings(LaunchSettings, "--config")
    parser.add_argument("--cluster", type=Cluster, required=True,
                        help="local: processes of this machine; debug: this process; slurm: submit to the cluster")
    parser.add_argument("--site", type=Path | None, default=None,
                        help="TOML file of the cluster, slurm/sites/NAME.toml")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and every script; submit nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    settings, arguments = read_experiment(build_parser(), argv)
    site = read_site(arguments.site)
    if arguments.dry_run:
        print(format_scripts(settings, arguments.cluster, site))
        return
    launch(settings, arguments.cluster, site)


if __name__ == "__main__":
    sys.exit(exit_status(main))
