"""Train, evaluate and report a job file, through submitit: on this machine, in this process, or on a SLURM cluster.

Training runs on `resources.nodes` x `resources.ranks_per_node` ranks; when it has ended, however it ended, a second job
measures the network and writes the report. With --cluster slurm both are submitted and the command returns.

A job file with a [sweep] stands for many runs: each point of the grid is trained once, here one after the other, on
SLURM as a job array, and one report compares them. Launched again, only what is missing or unfinished is trained.
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
from hpc_vsr.errors import BAD_INPUT, CAN_CONTINUE, DONE, Failed, InputError, Stopped, exit_status
from hpc_vsr.experiment import Experiment, format_plan, has_finished, read_experiment
from hpc_vsr.files import create_folder
from hpc_vsr.job import ReportJob, TrainJob
from hpc_vsr.runs import RunFolder
from hpc_vsr.slurm import Resources, Site, read_site, report_parameters, train_parameters
from hpc_vsr.sweep import check_all, expand, read_sweep, without_given

Cluster = Literal["local", "debug", "slurm"]
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class LaunchSettings(Experiment):
    """A job file with the resources that it asks for.

    Attributes
    ----------
    max_parallel : int
        How many runs of a sweep SLURM starts at a time.
    resources : Resources
    """

    max_parallel: int = 8
    resources: Resources = dataclasses.field(default_factory=Resources)

    def __post_init__(self):
        if self.max_parallel < 1:
            raise InputError(f"max_parallel: must be at least 1, found {self.max_parallel}")

    @property
    def experiment(self) -> Experiment:
        return Experiment(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Experiment)})


def script_text(folder: Path, parameters: dict[str, Any], num_elements: int = 1) -> str:
    """The sbatch script that submitit would submit, as an array if it has several elements; needs no SLURM."""

    class Text(SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            return 1  # pretend that srun is there

    executor = Text(folder)
    executor.update_parameters(**parameters)
    if num_elements > 1:
        executor.parameters["map_count"] = num_elements  # what submitit sets for an array
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def launch(settings: LaunchSettings, experiments: list[Experiment], cluster: Cluster, site: Site) -> None:
    """Submit training and report; locally also wait for them, show the log and print the table.

    Parameters
    ----------
    settings : LaunchSettings
    experiments : list of Experiment
        The runs: one, or the points of a sweep.
    cluster : {"local", "debug", "slurm"}
    site : Site

    Raises
    ------
    InputError
        If a data set is not complete, the cluster is not there, or a job says that its input is wrong.
    Stopped
        If training was asked to stop and can continue.
    """
    resources = settings.resources
    check_all(experiments, resources.nodes * resources.ranks_per_node)
    job_name = RunFolder(settings.out).name
    logs = Path("logs") / job_name
    create_folder(logs)
    pending = [experiment for experiment in experiments if not has_finished(RunFolder(experiment.out), experiment)]
    if len(experiments) > 1:
        print(f"{settings.out}: {len(experiments)} runs, {len(experiments) - len(pending)} finished before",
              file=sys.stderr)
    report = ReportJob(tuple(experiments), RunFolder(settings.out).report)
    if cluster == "slurm":
        try:
            _submit_to_slurm(settings, pending, report, site, logs)
        except submitit.core.utils.FailedJobError as error:  # what sbatch answers: a wrong partition, account, size
            raise InputError(f"sbatch refused the job: {str(error).strip().splitlines()[-1]}; "
                             "check --site and [resources]") from None
        return
    if resources.nodes > 1:
        raise InputError(f"resources.nodes: {resources.nodes} nodes need --cluster slurm")
    _run_here(settings, pending, report, cluster, logs)


def _run_here(settings: LaunchSettings, pending: list[Experiment], report: ReportJob, cluster: Cluster, logs: Path
              ) -> None:
    """Train one run after the other, then report; a run that fails does not keep the others from being trained."""
    resources = settings.resources
    alone = len(report.experiments) == 1
    for experiment in pending or (report.experiments if alone else []):  # a single finished run says so
        training = _local_executor(cluster, logs, resources.ranks_per_node, resources.gpus_per_node, resources.hours)
        name = "training" if alone else f"training of {RunFolder(experiment.out).name}"
        try:
            _wait(training.submit(TrainJob(experiment)), name, logs, cluster)
        except (InputError, Failed) as error:
            if alone:
                raise
            print(f"failed: {error}", file=sys.stderr, flush=True)
    executor = _local_executor(cluster, logs, 1, min(1, resources.gpus_per_node), resources.hours)
    try:
        _wait(executor.submit(report), "report", logs, cluster)
    finally:
        if (report.out / "report.md").exists():
            print((report.out / "report.md").read_text(encoding="utf-8"))
            print(f"report: {report.out / 'index.html'}", flush=True)


def _submit_to_slurm(settings: LaunchSettings, pending: list[Experiment], report: ReportJob, site: Site, logs: Path
                     ) -> None:
    try:
        training, executor = submitit.SlurmExecutor(logs), submitit.SlurmExecutor(logs)
    except RuntimeError:
        raise InputError("--cluster slurm: srun is not on this machine; log in to the cluster, "
                         "or use --cluster local, or --dry-run to see the scripts") from None
    name = RunFolder(settings.out).name
    is_sweep = len(report.experiments) > 1
    training.update_parameters(**train_parameters(name, settings.resources, site, settings.max_parallel * is_sweep))
    if is_sweep and pending:
        with training.batch():
            jobs = [training.submit(TrainJob(experiment)) for experiment in pending]
    else:
        jobs = [] if is_sweep else [training.submit(TrainJob(experiment)) for experiment in report.experiments]
    identity = jobs[0].job_id.split("_")[0] if jobs else None
    executor.update_parameters(**report_parameters(name, settings.resources, site, identity))
    report_job = executor.submit(report)
    number = f" ({len(jobs)} of {len(report.experiments)} runs, as an array)" if is_sweep else ""
    training_text = f"training {identity}{number} and report {report_job.job_id} are" if jobs else \
        f"nothing is left to train; report {report_job.job_id} is"
    watched = ",".join(filter(None, (identity, report_job.job_id)))
    print(f"{training_text} submitted; logs in {logs}/\n"
          f"watch: squeue -j {watched}" + (f"; tail -f {jobs[0].paths.stderr}" if jobs else "") +
          f"\nreport: {report.out / 'index.html'}")


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
        raise Failed(f"{stage}: ended without a result; see {job.paths.stdout}") from None
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
    if stage == "report" and any(status != DONE for status in statuses):
        raise Failed("the report lists what is missing")
    if any(status != DONE for status in statuses):
        raise Failed(f"{stage}: failed on rank {[status != DONE for status in statuses].index(True)}; "
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


def format_scripts(settings: LaunchSettings, experiments: list[Experiment], cluster: Cluster, site: Site) -> str:
    """The plan, and on SLURM the sbatch script of every job, as text for --dry-run."""
    resources = settings.resources
    pending = [experiment for experiment in experiments if not has_finished(RunFolder(experiment.out), experiment)]
    points = "" if len(experiments) == 1 else "\n".join(
        [f"sweep    {len(experiments)} runs, {len(experiments) - len(pending)} finished before",
         *(f"{number:>8} {experiment.out}{'' if experiment in pending else ' (finished)'}"
           for number, experiment in enumerate(experiments))]) + "\n"
    if cluster != "slurm":
        check_all(experiments, resources.ranks_per_node)
        return (f"{format_plan(experiments[0])}\n{points}"
                f"launch   {resources.ranks_per_node} ranks on this machine ({cluster}), "
                f"{len(os.sched_getaffinity(0))} cores; then evaluation and report")
    run = RunFolder(settings.out).name
    logs = Path("logs") / run
    throttle = settings.max_parallel * (len(experiments) > 1)
    is_needed = bool(pending) or len(experiments) == 1  # a single run is submitted again and says that it is finished
    scripts = {"training": train_parameters(run, resources, site, throttle)} if is_needed else {}
    scripts["report"] = report_parameters(run, resources, site, after="TRAINING" if is_needed else None)
    return points + "\n".join(
        f"### {name}\n{script_text(logs, parameters, len(pending) if name == 'training' else 1)}"
        for name, parameters in scripts.items())


def build_parser() -> Parser:
    parser = Parser("launch", __doc__)
    parser.add_settings(LaunchSettings, "--config", also=("sweep",))
    parser.add_argument("--cluster", type=Cluster, required=True,
                        help="local: processes of this machine; debug: this process; slurm: submit to the cluster")
    parser.add_argument("--site", type=Path | None, default=None,
                        help="TOML file of the cluster, slurm/sites/NAME.toml")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and every script; submit nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    settings, arguments = read_experiment(build_parser(), argv)
    site = read_site(arguments.site)
    experiments = expand(settings.experiment, without_given(read_sweep(arguments.config), argv), str(arguments.config))
    if arguments.dry_run:
        print(format_scripts(settings, experiments, arguments.cluster, site))
        return
    launch(settings, experiments, arguments.cluster, site)


if __name__ == "__main__":
    sys.exit(exit_status(main))
