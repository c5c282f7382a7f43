"""What a launcher runs on each rank: picklable callables that set up the ranks' environment and run a stage.

They return an exit status, so that a launcher need not tell a user's mistake from a crash.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import submitit

from hpc_vsr.errors import CAN_CONTINUE, DONE, Failed, InputError, exit_status
from hpc_vsr.evaluate import evaluate_if_needed
from hpc_vsr.experiment import Experiment, has_finished
from hpc_vsr.manifest import read_manifest
from hpc_vsr.report import write_report
from hpc_vsr.runs import RunFolder
from hpc_vsr.train import train

FIRST_PORT, NUM_PORTS = 20000, 20000


@dataclass(frozen=True)
class TrainJob:
    """Trains an experiment on all ranks of the job."""

    experiment: Experiment

    def __call__(self) -> int:
        environment = submitit.JobEnvironment()
        export_ranks(environment)
        return told_to(environment, exit_status(self._train))

    def _train(self, _argv: Sequence[str] | None) -> None:
        train(self.experiment)


@dataclass(frozen=True)
class ReportJob:
    """Measures the networks of experiments and writes one report of them; one rank.

    Attributes
    ----------
    experiments : tuple of Experiment
    out : Path
        Folder of the report.
    """

    experiments: tuple[Experiment, ...]
    out: Path

    def __call__(self) -> int:
        return told_to(submitit.JobEnvironment(), exit_status(self._evaluate_and_report))

    def _evaluate_and_report(self, _argv: Sequence[str] | None) -> None:
        for experiment in self.experiments:
            run = RunFolder(experiment.out)
            try:
                evaluate_if_needed(run, read_manifest(experiment.data), experiment.evaluate)
            except InputError as error:
                if len(self.experiments) == 1:
                    raise
                print(f"{run.path}: not measured: {error}", file=sys.stderr)
        runs = [RunFolder(experiment.out) for experiment in self.experiments]
        write_report(runs, self.out, self.experiments[0].evaluate.split)
        missing = unfinished(self.experiments)
        if missing:
            raise Failed(f"{len(missing)} of {len(runs)} runs are missing or not finished: {', '.join(missing)}; the "
                         f"report in {self.out} has the others; mend what the log says of them and launch again")


def unfinished(experiments: Sequence[Experiment]) -> list[str]:
    """Names of the runs that have not been trained to their last step."""
    return [RunFolder(experiment.out).name for experiment in experiments
            if not has_finished(RunFolder(experiment.out), experiment)]


def told_to(environment: submitit.JobEnvironment, status: int) -> int:
    """The status as the job's result; on SLURM a failure also fails the task, so that the job shows it and ends."""
    if environment.cluster == "slurm" and status not in (DONE, CAN_CONTINUE):
        raise RuntimeError(f"the stage ended with exit status {status}; its log says why")
    return status


def export_ranks(environment: submitit.JobEnvironment) -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT for `hpc_vsr.train`.

    The port follows from the job's number, so two jobs on one node do not meet.
    """
    one_node = environment.num_nodes == 1
    variables = {
        "RANK": environment.global_rank,
        "WORLD_SIZE": environment.num_tasks,
        "LOCAL_RANK": environment.local_rank,
        "LOCAL_WORLD_SIZE": environment.num_tasks // environment.num_nodes,
        "MASTER_ADDR": "127.0.0.1" if one_node else environment.hostnames[0],
        "MASTER_PORT": FIRST_PORT + zlib.crc32(environment.job_id.encode()) % NUM_PORTS,
    }
    os.environ.update({name: str(value) for name, value in variables.items()})
    if one_node and Path("/sys/class/net/lo").exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a laptop's host name often leads nowhere
