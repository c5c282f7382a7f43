"""Runs the stages of a job file on this machine, one after the other. `launch` also hands a job file to SLURM."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import submitit
import torch

from hpc_vsr.cluster.jobs import OnGpus, PreprocessJob, ReportJob, TrainJob
from hpc_vsr.cluster.overview import read_status
from hpc_vsr.cluster.site import Cluster, Site
from hpc_vsr.cluster.submit import format_scripts, submit
from hpc_vsr.experiment.checks import check_batch
from hpc_vsr.experiment.finished import check_same_settings
from hpc_vsr.experiment.jobfile import JobFile, MissingSource, list_pending
from hpc_vsr.experiment.progress import NOT_STARTED, read_progress
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.experiment.start import by_folder, sibling_of
from hpc_vsr.experiment.sweep import check_all
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system.errors import BAD_INPUT, CAN_CONTINUE, DONE, FAILED, Failed, InputError, Stopped
from hpc_vsr.system.files import create_folder
from hpc_vsr.system.gpus import ids_for_launch, why_none
from hpc_vsr.system.mpi import library
from hpc_vsr.system.signals import StopFlag, launching
from hpc_vsr.training.plan import format_plan

POLL_SECONDS = 0.5
REQUEST_SECONDS = 10.0  # between two requests to stop; a rank that was still loading has missed the first
MINUTES_OF_A_YEAR = 60 * 24 * 365


def launch(job: JobFile, experiments: list[Experiment], cluster: Cluster, site: Site) -> None:
    """Submit the preprocessing, the training and the report, or run them here and show their logs and the table.

    Parameters
    ----------
    job : JobFile
    experiments : list of Experiment
        The runs: one, or the points of a sweep.
    cluster : {"local", "debug", "slurm"}
    site : Site

    Raises
    ------
    InputError
        If a data set is incomplete, this machine has no SLURM, or a stage reports wrong input.
    Stopped
        If a stage was asked to stop; the same command continues it.
    """
    resources = job.resources
    refused = check_job(job, experiments, cluster)
    tell_refused(refused)
    if cluster == "slurm":
        print(submit(job, experiments, site), flush=True)
        status = read_status(job, experiments)
        untold = [state for state in status.runs if state.run.path not in refused]
        for line in dataclasses.replace(status, runs=untold).needs_attention:  # what this launch does not mend
            print(f"warning: {line}", file=sys.stderr, flush=True)
        return
    if resources.nodes > 1:
        raise InputError(f"resources.nodes: {resources.nodes} nodes need --cluster slurm")
    create_folder(job.logs)
    LocalChain(job, experiments, cluster).run()


def check_job(job: JobFile, experiments: list[Experiment], cluster: Cluster) -> dict[Path, str]:
    """Raise `InputError` for a mistake that can be found before anything is started.

    Returns
    -------
    dict
        {run folder: reason} of the points of a sweep that cannot be trained; the others can.
    """
    resources = job.resources
    for experiment in experiments:
        if not experiment.impossible:
            check_same_settings(RunFolder(experiment.out), experiment)
        if experiment.train.device == "cuda" and not resources.gpus_per_node:
            raise InputError('train.device: is "cuda", and resources.gpus_per_node is 0; set it to the GPUs of a node')
    if cluster == "local":
        ids_for_launch(resources.gpus_per_node)
    # check the experiments against the data set; if that is yet to be made, check its source instead
    world_size = resources.ranks_per_node * (resources.nodes if cluster == "slurm" else 1)
    if not job.needs_data:
        return check_all(experiments, world_size)
    job.check_source()
    refused = check_all(experiments, world_size, lambda experiment: check_batch(experiment.train, world_size))
    if cluster == "slurm" and resources.preprocess_nodes * resources.preprocess_ranks > 1 and library() is None:
        raise InputError("resources.preprocess_ranks: several ranks need MPI, and mpi4py finds none; "
                         "pip install 'hpc-vsr[mpi]', or set preprocess_ranks to 1")
    return refused


def tell_refused(refused: Mapping[Path, str]) -> None:
    """Print a line for each point of a sweep that cannot be trained."""
    for out, reason in refused.items():
        print(f"warning: {out}: cannot be trained, and the other runs can: {reason}", file=sys.stderr, flush=True)


def with_cpu(experiment: Experiment) -> Experiment:
    """Return the experiment with the CPU as its training device."""
    return dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, device="cpu"))


class LocalChain:
    """The chain of a job file on this machine, one stage after the other."""

    def __init__(self, job: JobFile, experiments: list[Experiment], cluster: Cluster):
        self.job, self.experiments, self.cluster = job, experiments, cluster
        self.gpus = ids_for_launch(job.resources.gpus_per_node)
        if not job.resources.gpus_per_node:
            self.experiments = [with_cpu(experiment) for experiment in experiments]
            if torch.cuda.device_count():
                print("training on the CPU: resources.gpus_per_node is 0; --resources.gpus-per-node N "
                      "--resources.ranks-per-node N trains on N GPUs of this machine", file=sys.stderr)
        elif not self.gpus:
            print(f"warning: training on the CPU: {why_none()}", file=sys.stderr)

    def run(self) -> None:
        """Run all stages; if a run of a sweep fails, the others are still trained."""
        job, resources = self.job, self.job.resources
        # make the data set; the experiments can be checked only then
        if job.needs_data:
            self._run_stage(PreprocessJob(job.recipe, job.data), "preprocessing", 1)
            tell_refused(check_all(self.experiments, resources.ranks_per_node))
        # train the runs that are not finished, one after the other
        pending, is_sweep = list_pending(self.experiments), len(self.experiments) > 1
        if is_sweep:
            print(f"{job.out}: {len(self.experiments)} runs, {len(self.experiments) - len(pending)} finished before",
                  file=sys.stderr)
        folders = by_folder(self.experiments)
        for experiment in pending if is_sweep else self.experiments:  # a single finished run says that it is finished
            start = sibling_of(experiment, folders)
            if start is not None and list_pending([start]):
                print(f"failed: {experiment.out}: starts from {start.out}, which is not finished", file=sys.stderr,
                      flush=True)
                continue
            name = f"training of {RunFolder(experiment.out).name}" if is_sweep else "training"
            try:
                self._run_stage(TrainJob(experiment), name, resources.ranks_per_node, self.gpus)
            except (InputError, Failed) as error:
                if not is_sweep:
                    raise
                print(f"failed: {error}", file=sys.stderr, flush=True)
        # measure and report all runs; print the table even if some of them are missing
        try:
            report = ReportJob(tuple(self.experiments), job.report)
            self._run_stage(report, "report", 1, self.gpus.partition(",")[0])
        finally:
            if (job.report / "report.md").exists():
                print((job.report / "report.md").read_text(encoding="utf-8"))
                print(f"report: {job.report / 'index.html'}", flush=True)

    def _run_stage(self, work: Callable[[], int], stage: str, num_tasks: int, gpus: str = "") -> None:
        """Run a stage on `num_tasks` ranks and show the log of its first rank; pass on signals, so that it saves.

        `gpus` are the ids of the GPUs that it may use, as in CUDA_VISIBLE_DEVICES.
        """
        if self.cluster == "debug":
            self._raise_failure(stage, submitit.DebugExecutor(self.job.logs).submit(work))
            return
        with StopFlag() as stop:
            with launching():
                job = self._build_executor(num_tasks).submit(OnGpus(work, gpus) if gpus else work)
            # show new log lines until the job ends; after a signal, ask it to stop
            shown, last_request = 0, -math.inf
            while not job.done():
                shown = _print_new_lines(job.paths.stdout, shown)
                if stop.name and time.monotonic() - last_request > REQUEST_SECONDS:
                    print(f"{stop.name}: asked the {stage} to save and end", file=sys.stderr, flush=True)
                    os.kill(int(job.job_id), signal.SIGTERM)  # submitit's controller passes it on to all ranks
                    last_request = time.monotonic()
                time.sleep(POLL_SECONDS)
            _print_new_lines(job.paths.stdout, shown)
            self._raise_failure(stage, job, stop.name)

    def _raise_failure(self, stage: str, job: submitit.Job, stopped_by: str | None = None) -> None:
        """Raise the `InputError`, `Stopped` or `Failed` that the exit statuses of a job mean; none if all are 0."""
        try:
            statuses = job.results()
        except submitit.core.utils.UncompletedJobError:
            statuses = None
        if stopped_by and statuses != [DONE] * len(statuses or [FAILED]):
            raise Stopped(f"{stage}: ended by {stopped_by}; the same command continues")
        if statuses is None:
            raise Failed(f"{stage}: ended without a result; see {job.paths.stdout}")
        if BAD_INPUT in statuses:
            raise InputError(f"{stage}: {_last_error(job.paths.stdout) or f'see {self.job.logs}'}")
        if CAN_CONTINUE in statuses:
            raise Stopped(f"{stage}: saved; the same command continues")
        if stage == "report" and any(status != DONE for status in statuses):
            raise Failed("the report lists what is missing")
        if any(status != DONE for status in statuses):
            raise Failed(f"{stage}: failed on rank {[status != DONE for status in statuses].index(True)}; "
                         f"see {self.job.logs}")

    def _build_executor(self, num_tasks: int) -> submitit.Executor:
        executor = submitit.LocalExecutor(self.job.logs)
        # The job asks submitit for no GPU, because submitit would give it the first ones of the machine, whichever the
        # user may use; OnGpus names the right ones. There is no queue here, so no time limit either.
        executor.update_parameters(tasks_per_node=num_tasks, stderr_to_stdout=True, timeout_min=MINUTES_OF_A_YEAR)
        return executor


def _print_new_lines(log: Path, position: int) -> int:
    """Print the lines after `position` of a log, without submitit's own; return the new position."""
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
    """Return the last error message in a stage's log; empty if there is none."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else ""


def format_launch(job: JobFile, experiments: list[Experiment], cluster: Cluster, site: Site) -> str:
    """Return the plan, and on SLURM the sbatch script of every job, as text for --dry-run."""
    resources = job.resources
    points = "" if len(experiments) == 1 else _format_points(experiments) + "\n"
    try:
        tell_refused(check_job(job, experiments, cluster))
    except MissingSource as error:  # the scripts are right all the same
        print(f"warning: {error}", file=sys.stderr)
    ranks = resources.ranks_per_node
    if cluster == "slurm":
        plan = _format_plans(job, experiments, ranks * resources.nodes, bool(resources.gpus_per_node))
        return f"{plan}\n{points}{format_scripts(job, experiments, site)}"
    plan = _format_plans(job, experiments, ranks, bool(ids_for_launch(resources.gpus_per_node)))
    return (f"{plan}\n{points}launch   {ranks} rank{'s' * (ranks > 1)} on this machine ({cluster}), "
            f"{len(os.sched_getaffinity(0))} cores; then evaluation and report")


def _format_points(experiments: list[Experiment]) -> str:
    """Return a line for each run of a sweep with its state, if it is not new."""
    progress = [read_progress(RunFolder(experiment.out), experiment) for experiment in experiments]
    finished = len(experiments) - len(list_pending(experiments))
    return "\n".join([f"sweep    {len(experiments)} runs, {finished} finished before",
                      *(f"{number:>8} {experiment.out}{'' if found.state == NOT_STARTED else f' ({found.sentence})'}"
                        for number, (experiment, found) in enumerate(zip(experiments, progress, strict=True)))])


def _format_plans(job: JobFile, experiments: list[Experiment], ranks: int, on_gpus: bool) -> str:
    """Return the plan of the first run with its memory, which is compared with the memory that the job asks for."""
    if job.needs_data:
        return f"data     {job.data} is made first, from {job.recipe}"
    possible = [experiment for experiment in experiments if not experiment.impossible]
    plan = format_plan(possible[0], ranks, on_gpus=on_gpus)
    asked = job.resources.memory_gb
    return plan + (f"\nasks for {asked:g} GB of memory a node, {job.resources.ranks_per_node} "
                   f"rank{'s' * (job.resources.ranks_per_node > 1)} a node" if asked else "")
