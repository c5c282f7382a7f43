"""Reads the states of all runs and jobs of a job file, or of all runs in a folder, with one query of SLURM's queue."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_vsr.cluster.find import find_data, find_report, find_run
from hpc_vsr.cluster.record import DATA_FOLDER, RECORD, REPORT, is_cancelled, read_record, run_key
from hpc_vsr.cluster.state import GOING, NEVER, WAITING, JobState, RunState
from hpc_vsr.experiment.jobfile import JobFile
from hpc_vsr.experiment.progress import FINISHED
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system import slurm
from hpc_vsr.system.errors import Failed
from hpc_vsr.system.files import file_time

LOGS = Path("logs")


@dataclass(frozen=True)
class Status:
    """The runs of a job file in its order, runs that were launched with other settings, and the other jobs.

    Attributes
    ----------
    runs : list of RunState
    jobs : list of JobState
        The data set and the report.
    refused : tuple of str
        The runs of the job file whose folders hold other settings: `launch` refuses the job file because of them.
    """

    runs: list[RunState]
    jobs: list[JobState]
    refused: tuple[str, ...] = ()

    @property
    def is_going(self) -> bool:
        """True while something waits that may start, or runs."""
        return any(item.state in GOING for item in (*self.runs, *self.jobs))

    @property
    def needs_attention(self) -> list[str]:
        """A line for each run that is neither finished nor on its way, and for each such job."""
        runs = [f"{state.run.path}: {state.sentence}" for state in self.runs
                if state.state not in (FINISHED, *GOING) or state.progress.other]
        return [*runs, *(str(job) for job in self.jobs if job.state not in (FINISHED, *GOING))]


def ask_queue() -> dict[str, slurm.Queued] | None:
    """Return SLURM's queue; None without SLURM, or if it does not answer, which is told."""
    if not slurm.has_slurm():
        return None
    try:
        return slurm.read_queue()
    except Failed as failed:
        print(f"{failed}; this table shows only what the files say", file=sys.stderr)
        return None


def read_status(job: JobFile, experiments: Sequence[Experiment]) -> Status:
    """Return the state of every run of a job file, of its data set and of its report."""
    return read_states(job.out, job.data, job.logs, job.report / "index.html", experiments)


def read_states(out: Path, data: Path, logs: Path, page: Path, experiments: Sequence[Experiment],
                queue: Any = ...) -> Status:
    """Return the states of the runs in `out` and of the jobs beside them; without a `queue`, SLURM is asked for it."""
    record, queue = read_record(out), ask_queue() if queue is ... else queue
    numbers = record.get("runs", {})
    made = find_data(data, queue, logs)

    def find(folder: Path, experiment: Experiment | None, number: str) -> RunState:
        return find_run(RunFolder(folder), experiment, number, queue, logs, made, is_cancelled(record, number))

    runs = [find(experiment.out, experiment, numbers.get(run_key(experiment.out), "")) for experiment in experiments]
    refused = tuple(state.run.name for state in runs if state.progress.other)
    ours = {run_key(experiment.out) for experiment in experiments}
    for key, number in numbers.items():  # runs of the same folder with other settings
        if key not in ours and Path(key).parent == Path(run_key(out)):
            runs.append(_find_foreign(Path(out, Path(key).name), experiments, number, find))
    report = _find_report(page, out, record, runs, queue, logs)
    return Status(runs, [state for state in (made, report) if state is not None], refused)


def _find_report(page: Path, out: Path, record: Mapping[str, Any], runs: Sequence[RunState],
                 queue: Mapping[str, slurm.Queued] | None, logs: Path) -> JobState | None:
    """Return the state of the report on the runs of a folder; None if there is none to tell of."""
    changed = max((file_time(state.run.path / "checkpoints") for state in runs), default=0.0)
    report = find_report(page, record.get(REPORT), file_time(out / RECORD), queue, logs, changed,
                         is_cancelled(record, record.get(REPORT)))
    if report is not None and report.state == WAITING and any(state.state == NEVER for state in runs) \
            and not any(state.state in GOING for state in runs):
        return JobState(report.what, NEVER, report.number, "it waits for runs that never start")
    return report


def _find_foreign(folder: Path, experiments: Sequence[Experiment], number: str,
                  find: Callable[[Path, Experiment | None, str], RunState]) -> RunState:
    """Return the state of a run that was launched with other settings; it is compared with the run most like it."""
    candidates = [find(folder, experiment, number) for experiment in experiments if not experiment.impossible]
    states = [state for state in candidates if state.progress.other]
    if states:
        return min(states, key=lambda state: len(state.progress.other))
    state = find(folder, None, number)
    note = "; ".join(filter(None, ["launched here with other settings", state.note]))
    return RunState(state.run, state.state, state.progress, state.job, note, state.log)


def read_overview(folder: Path) -> Status:
    """Return the state of every run in a folder such as runs/, at any depth, and of the jobs beside them.

    The jobs are those that wait, run or have failed; each names its folder.
    """
    queue = ask_queue()
    runs, jobs, shown = [], [], set()
    for place in _places(folder):
        record = read_record(place)
        numbers = {Path(key): number for key, number in record.get("runs", {}).items()}
        submitted = [place if key == place.resolve() else place / key.name for key in numbers
                     if place.resolve() in (key, key.parent)]
        paths = [path for path in (place, *_folders(place)) if _is_run(path)] + submitted
        # a run that was launched alone has a record of its own
        found = {path.resolve(): path for path in paths if path == place or not read_record(path)}
        found = {key: path for key, path in found.items() if key not in shown}
        shown |= found.keys()
        logs = LOGS / place.name
        made = find_data(Path(record[DATA_FOLDER]), queue, logs) if DATA_FOLDER in record else None
        states = [find_run(RunFolder(path), None, number, queue, logs, made, is_cancelled(record, number))
                  for key, path in found.items() for number in [numbers.get(key, "")]]
        report = _find_report(RunFolder(place).report / "index.html", place, record, states, queue, logs)
        runs += states
        jobs += [dataclasses.replace(job, what=f"{place}: {job.what}") for job in (made, report)
                 if job is not None and job.state != FINISHED]
    return Status(sorted(runs, key=lambda state: state.run.path), jobs)


def _places(folder: Path, seen: set[Path] | None = None) -> Iterator[Path]:
    """Yield the folders below `folder`, at any depth, but none that is below a run, and none twice by way of links."""
    seen = {folder.resolve()} if seen is None else seen
    for path in _folders(folder):
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        yield path
        if not _is_run(path):
            yield from _places(path, seen)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[!.]*") if path.is_dir())


def _is_run(path: Path) -> bool:
    return (path / "config.json").exists() or (path / "checkpoints").is_dir()
