"""The jobs that submitit runs on every rank: preprocessing, training, or evaluation and report."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import submitit
from submitit.slurm.slurm import SlurmJobEnvironment

from hpc_vsr.cluster.overview import LOGS, ask_queue, read_states
from hpc_vsr.cluster.requeue import Life
from hpc_vsr.data.build import format_dataset, preprocess
from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.recipe import read_recipe
from hpc_vsr.evaluation.evaluate import Baselines, evaluate_if_needed
from hpc_vsr.experiment.jobfile import list_pending
from hpc_vsr.experiment.progress import FINISHED
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system.errors import CAN_CONTINUE, DONE, Failed, InputError, Stopped, exit_status
from hpc_vsr.system.gpus import VARIABLE as CUDA_VISIBLE_DEVICES
from hpc_vsr.system.lock import remove_left
from hpc_vsr.system.mpi import abort_together, connect, on_main_rank
from hpc_vsr.system.signals import StopFlag, follow_launcher, interrupt_on_sigterm, release_signals
from hpc_vsr.system.slurm import Queued, restarts
from hpc_vsr.training.train import train

FIRST_PORT, NUM_PORTS = 20000, 12000  # below the ports that the system assigns by itself
MAIN_RANK_SECONDS = 120


class _Restartable:
    """A callable that submitit may call again after a requeue; it finds what is done and continues."""

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        return submitit.helpers.DelayedSubmission(self)


@dataclass(frozen=True)
class PreprocessJob(_Restartable):
    """The job that makes the data set of a recipe, on all its MPI ranks.

    Attributes
    ----------
    recipe : Path
    out : Path
        Folder of the data set.
    """

    recipe: Path
    out: Path

    def __call__(self) -> int:
        _end_with_launcher()
        release_signals()
        return as_job_result(submitit.JobEnvironment(), exit_status(self.preprocess))

    def preprocess(self, _argv: Sequence[str] | None = None) -> None:
        comm = connect()
        with abort_together(comm):
            recipe = on_main_rank(comm, lambda: read_recipe(self.recipe))
            manifest = preprocess(dataclasses.replace(recipe, out=self.out), comm)
        if comm.rank == 0:
            print(format_dataset(manifest))


@dataclass(frozen=True)
class TrainJob(_Restartable):
    """The job that trains an experiment on all its ranks; on SLURM it goes back to the queue if it is stopped.

    Attributes
    ----------
    experiment : Experiment
    max_requeues : int
    """

    experiment: Experiment
    max_requeues: int = 0

    def __call__(self) -> int:
        environment = submitit.JobEnvironment()
        return as_job_result(environment, self.run(environment))

    def run(self, environment: submitit.JobEnvironment) -> int:
        """Train, and return the exit status of this rank."""
        with StopFlag() as stop:
            follow_launcher()
            export_ranks(environment)
            # on SLURM, the main rank sends the job back to the queue, and the other ranks wait for it
            if environment.cluster != "slurm" or environment.global_rank != 0:
                status = exit_status(lambda _: train(self.experiment, stop))
                if environment.cluster == "slurm" and status == CAN_CONTINUE:
                    # srun --wait=60 ends the main rank a minute after another one, perhaps before SLURM has answered
                    time.sleep(MAIN_RANK_SECONDS)
                return status
            return exit_status(lambda _: Life(RunFolder(self.experiment.out), self.max_requeues).run_until_stopped(
                lambda: train(self.experiment, stop)))


@dataclass(frozen=True)
class ReportJob(_Restartable):
    """The job that measures all networks and writes one report about them, on one rank.

    Attributes
    ----------
    experiments : tuple of Experiment
    out : Path
        Folder of the report.
    """

    experiments: tuple[Experiment, ...]
    out: Path

    def __call__(self) -> int:
        _end_with_launcher()
        release_signals()
        return as_job_result(submitit.JobEnvironment(), exit_status(self.evaluate_and_report))

    def evaluate_and_report(self, _argv: Sequence[str] | None = None) -> None:
        for folder in {folder for experiment in self.experiments for folder in (experiment.data, experiment.out)}:
            remove_left(folder)  # a killed stage leaves its lock, and nothing else removes that of a finished one
        # measure each run; if one fails, the others are still reported
        shared = Baselines()
        for experiment in self.experiments:
            run = RunFolder(experiment.out)
            try:
                if experiment.impossible:
                    raise InputError(experiment.impossible)
                if not run.config.exists():
                    raise InputError(f"{run.path}: its training has not begun, or ended before its first step; see its "
                                     "log")
                evaluate_if_needed(run, read_manifest(experiment.data), experiment.evaluate, shared)
            except Stopped:  # the time limit is near; the job goes back to the queue
                raise
            except InputError as error:
                if len(self.experiments) == 1:
                    raise
                print(f"{run.path}: not measured: {error}", file=sys.stderr, flush=True)
            except Exception:  # still report the others
                if len(self.experiments) == 1:
                    raise
                print(f"{run.path}: not measured:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        runs = [RunFolder(experiment.out) for experiment in self.experiments]
        from hpc_vsr.report.write import write_report  # imports matplotlib, which submitting does not need

        write_report(runs, self.out, self.experiments[0].evaluate.split, states=self._read_states())
        missing = [RunFolder(experiment.out).name for experiment in list_pending(self.experiments)]
        if missing:
            raise Failed(f"{len(missing)} of {len(runs)} runs are missing or not finished: {', '.join(missing)}; the "
                         f"report in {self.out} has the others; see their logs, then launch again")
        print(f"report: {self.out / 'index.html'}", file=sys.stderr, flush=True)

    def _read_states(self) -> dict[str, str]:
        """Return {run: state and reason} of the runs that are not finished, and print them."""
        folder = self.out.parent
        states = read_states(folder, self.experiments[0].data, LOGS / folder.absolute().name, self.out / "index.html",
                             self.experiments, _queue_of_others()).runs[:len(self.experiments)]
        told = {state.run.name: state.sentence for state in states if state.kind != FINISHED}
        for state in states:
            if state.run.name in told:
                print(f"{state.run.path}: {state.sentence}", file=sys.stderr, flush=True)
        return told


@dataclass(frozen=True)
class OnGpus:
    """A callable wrapped so that it sees only some of the GPUs of this machine.

    Attributes
    ----------
    work : callable
    ids : str
        Value of CUDA_VISIBLE_DEVICES: numbers, UUIDs or MIG slices.
    """

    work: Callable[[], int]
    ids: str

    def __call__(self) -> int:
        os.environ[CUDA_VISIBLE_DEVICES] = self.ids  # read when a process first asks for its GPUs
        return self.work()


def _queue_of_others() -> dict[str, Queued] | None:
    """Return the jobs that are still in SLURM's queue, without those that it is just ending."""
    queue = ask_queue()
    return None if queue is None else {number: job for number, job in queue.items() if job.state != "COMPLETING"}


def _end_with_launcher() -> None:
    """Let a local stage end at once at SIGTERM, and when the `launch` that waits for it ends."""
    if submitit.JobEnvironment().cluster == "local":
        interrupt_on_sigterm()
        follow_launcher()


def as_job_result(environment: submitit.JobEnvironment, status: int) -> int:
    """Return the status as the job's result; on SLURM, end the process at a failure, so that SLURM sees the task fail.

    An exception would have submitit print twenty lines behind the one that says what is wrong.
    """
    if environment.cluster == "slurm" and status not in (DONE, CAN_CONTINUE):
        sys.exit(status)
    return status


def export_ranks(environment: submitit.JobEnvironment) -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT for `hpc_vsr.train`.

    The port depends on the job's number and restarts, so that two jobs on one node use different ports.
    """
    one_node = environment.num_nodes == 1
    variables = {
        "RANK": environment.global_rank,
        "WORLD_SIZE": environment.num_tasks,
        "LOCAL_RANK": environment.local_rank,
        "LOCAL_WORLD_SIZE": environment.num_tasks // environment.num_nodes,
        "MASTER_ADDR": "127.0.0.1" if one_node else environment.hostnames[0],
        "MASTER_PORT": FIRST_PORT + zlib.crc32(f"{environment.job_id} {restarts()}".encode()) % NUM_PORTS,
    }
    os.environ.update({name: str(value) for name, value in variables.items()})
    if one_node and Path("/sys/class/net/lo").exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the host name of a laptop often resolves to nothing


def environment_of_step(device: str) -> submitit.JobEnvironment:
    """Return the environment of this rank in a SLURM job.

    Raises `InputError` outside of a job, without srun, or with fewer GPUs than ranks.
    """
    if "SLURM_JOB_ID" not in os.environ:
        raise InputError("hpc-vsr job: runs inside a SLURM job; elsewhere use "
                         "'python -m hpc_vsr.launch --cluster local'")
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_STEP_NUM_TASKS" not in os.environ:
        raise InputError(f"hpc-vsr job: the job has {os.environ['SLURM_NTASKS']} tasks and this is one process: "
                         "start it as 'srun python -m hpc_vsr job ...'")
    environment = SlurmJobEnvironment()
    gpus, tasks = os.environ.get("SLURM_GPUS_ON_NODE", "0"), environment.num_tasks // environment.num_nodes
    if gpus.isdecimal() and 0 < int(gpus) < tasks and device != "cpu":
        raise InputError(f"hpc-vsr job: {tasks} tasks and {gpus} GPU{'s' * (int(gpus) > 1)} on each node: one rank "
                         f"drives one GPU; sbatch --ntasks-per-node={gpus}, or ask for more GPUs")
    if gpus.isdecimal() and int(gpus) > tasks and environment.global_rank == 0:
        print(f"warning: {gpus} GPUs on each node and {tasks} task{'s' * (tasks > 1)}: one rank drives one GPU; "
              f"sbatch --ntasks-per-node={gpus} uses all", file=sys.stderr)
    return environment
