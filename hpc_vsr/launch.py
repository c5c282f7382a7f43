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

from hpc_vsr.config import Parser, from_dict, read_toml
from hpc_vsr.errors import BAD_INPUT, CAN_CONTINUE, DONE, InputError, Stopped, exit_status
from hpc_vsr.experiment import Experiment, format_plan, read_experiment
from hpc_vsr.files import create_folder
from hpc_vsr.job import ReportJob, TrainJob
from hpc_vsr.manifest import read_manifest
from hpc_vsr.runs import RunFolder

Cluster = Literal["local", "debug", "slurm"]
SIGNAL_DELAY_SECONDS = 120  # between SIGUSR2 and the time limit: room for a checkpoint
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Resources:
    """What the training job asks for; the report asks for one rank of it, without a GPU, for an hour.

    Attributes
    ----------
    nodes : int
        Number of nodes.
    ranks_per_node : int
        Processes on each node; one rank drives one GPU.
    cpus_per_rank : int
        Cores of each process.
    gpus_per_node : int
        GPUs on each node; 0 trains on the CPU.
    memory_gb : float
        Per node; 0 leaves it to the cluster.
    hours : float
        Time limit.
    """

    nodes: int = 1
    ranks_per_node: int = 1
    cpus_per_rank: int = 1
    gpus_per_node: int = 0
    memory_gb: float = 0.0
    hours: float = 1.0

    def __post_init__(self):
        if min(self.nodes, self.ranks_per_node, self.cpus_per_rank) < 1 or self.gpus_per_node < 0 or self.hours <= 0:
            raise InputError("resources: nodes, ranks_per_node and cpus_per_rank must be at least 1, hours above 0")


@dataclass(frozen=True)
class Queue:
    """Where SLURM runs a kind of job; what is not given is left out.

    Attributes
    ----------
    partition, account, qos, constraint : str
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None


@dataclass(frozen=True)
class Site:
    """What is particular to a cluster: slurm/sites/NAME.toml.

    Attributes
    ----------
    setup : list of str
        Shell lines before the work, such as `module load` or the activation of an environment.
    gpu, cpu : Queue
        For training, and for the report.
    """

    setup: tuple[str, ...] = ()
    gpu: Queue = dataclasses.field(default_factory=Queue)
    cpu: Queue = dataclasses.field(default_factory=Queue)


@dataclass(frozen=True)
class LaunchSettings(Experiment):
    """A job file with the resources that it asks for."""

    resources: Resources = dataclasses.field(default_factory=Resources)

    @property
    def experiment(self) -> Experiment:
        return Experiment(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Experiment)})


def read_site(path: Path | None) -> Site:
    """Settings of a cluster from a TOML file; the generic one if none is given."""
    if path is None:
        return Site()
    table = read_toml(path)
    setup = table.pop("setup", [])
    if not isinstance(setup, list) or not all(isinstance(line, str) for line in setup):
        raise InputError(f"{path}: setup: expected a list of shell lines in quotes, found {setup!r}")
    return dataclasses.replace(from_dict(Site, table, str(path)), setup=tuple(setup))


def train_parameters(settings: LaunchSettings, site: Site) -> dict[str, Any]:
    """submitit's parameters of the training job on SLURM."""
    resources = settings.resources
    parameters = {
        **_common_parameters(f"train-{RunFolder(settings.out).name}", site.setup, resources.hours, site.gpu),
        "nodes": resources.nodes,
        "ntasks_per_node": resources.ranks_per_node,
        "cpus_per_task": resources.cpus_per_rank,
        "signal_delay_s": SIGNAL_DELAY_SECONDS,
        "srun_args": ["--kill-on-bad-exit=1", "--wait=60"],
    }
    if resources.gpus_per_node:
        parameters["gpus_per_node"] = resources.gpus_per_node
        parameters["srun_args"] += ["--gpu-bind=none"]
    if resources.memory_gb:
        parameters["mem"] = f"{resources.memory_gb:g}GB"
    return parameters


def report_parameters(settings: LaunchSettings, site: Site, after: str) -> dict[str, Any]:
    """submitit's parameters of the report job on SLURM; it runs `after` the training, however that ended."""
    return {
        **_common_parameters(f"report-{RunFolder(settings.out).name}", site.setup, 1.0, site.cpu),
        "nodes": 1, "ntasks_per_node": 1, "cpus_per_task": settings.resources.cpus_per_rank,
        "dependency": f"afterany:{after}",
    }


def _common_parameters(name: str, setup: Sequence[str], hours: float, queue: Queue) -> dict[str, Any]:
    given = {key: value for key, value in dataclasses.asdict(queue).items() if value is not None}
    return {
        **given, "job_name": name, "time": max(1, round(hours * 60)), "wckey": None,
        # srun of SLURM 22.05 and later does not take --cpus-per-task from sbatch
        "setup": [*setup, "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"],
        # many clusters do not requeue unless asked to; SIGUSR2 would then end the job after its checkpoint
        "additional_parameters": {"requeue": True},
    }


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
    read_manifest(settings.data)
    run = RunFolder(settings.out)
    logs = Path("logs") / run.name
    create_folder(logs)
    if cluster == "slurm":
        _submit_to_slurm(settings, site, logs)
        return
    resources = settings.resources
    if resources.nodes > 1:
        raise InputError(f"resources.nodes: {resources.nodes} nodes need --cluster slurm")
    experiment = settings.experiment
    training = _local_executor(cluster, logs, resources.ranks_per_node, resources.hours)
    _wait(training.submit(TrainJob(experiment)), "training", logs, cluster)
    report = _local_executor(cluster, logs, 1, resources.hours)
    _wait(report.submit(ReportJob(experiment)), "report", logs, cluster)
    print((run.report / "report.md").read_text(encoding="utf-8"))
    print(f"report: {run.report / 'index.html'}")


def _submit_to_slurm(settings: LaunchSettings, site: Site, logs: Path) -> None:
    try:
        training = submitit.SlurmExecutor(logs)
    except RuntimeError:
        raise InputError("--cluster slurm: srun is not on this machine; log in to the cluster, "
                         "or use --cluster local, or --dry-run to see the scripts") from None
    training.update_parameters(**train_parameters(settings, site))
    train_job = training.submit(TrainJob(settings.experiment))
    report = submitit.SlurmExecutor(logs)
    report.update_parameters(**report_parameters(settings, site, train_job.job_id))
    report_job = report.submit(ReportJob(settings.experiment))
    run = RunFolder(settings.out)
    print(f"training {train_job.job_id} and report {report_job.job_id} are submitted; logs in {logs}/\n"
          f"watch: squeue -j {train_job.job_id},{report_job.job_id}; tail -f {train_job.paths.stderr}\n"
          f"report: {run.report / 'index.html'}")


def _local_executor(cluster: Cluster, logs: Path, num_tasks: int, hours: float) -> submitit.Executor:
    if cluster == "debug":
        return submitit.DebugExecutor(logs)
    executor = submitit.LocalExecutor(logs)
    executor.update_parameters(tasks_per_node=num_tasks, timeout_min=max(1, round(hours * 60)), stderr_to_stdout=True)
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
        return (f"{format_plan(settings.experiment)}\n"
                f"launch   {resources.ranks_per_node} ranks on this machine ({cluster}), "
                f"{len(os.sched_getaffinity(0))} cores; then evaluation and report")
    logs = Path("logs") / RunFolder(settings.out).name
    scripts = {"training": train_parameters(settings, site), "report": report_parameters(settings, site, "TRAINING")}
    return "\n".join(f"### {name}\n{script_text(logs, parameters)}" for name, parameters in scripts.items())


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
    if arguments.dry_run:
        print(format_scripts(settings, arguments.cluster, site))
        return
    launch(settings, arguments.cluster, site)


if __name__ == "__main__":
    sys.exit(exit_status(main))
