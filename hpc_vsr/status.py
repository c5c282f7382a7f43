"""Show a table of the runs of a job file: the state of each in the queue, its progress, best score and time left.

    python -m hpc_vsr.status --config jobs/ablation_recursion.toml --watch 60

Each table costs SLURM one query of its queue, and none on a machine without SLURM.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_vsr.cluster.record import DATA, REPORT, read_record, run_key
from hpc_vsr.experiment.finished import has_finished
from hpc_vsr.experiment.jobfile import JobFile, add_job_file, read_job
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.history import read_history
from hpc_vsr.system import slurm
from hpc_vsr.system.errors import Failed, InputError, exit_status
from hpc_vsr.system.lock import is_held, read_lock
from hpc_vsr.system.parser import Parser
from hpc_vsr.system.progress import format_seconds

HEADS = ("run", "state", "step", "of", "best (dB)", "steps/s", "left", "job", "")
NUMBERS = (2, 3, 4, 5, 6)
GOING = ("queued", "running", "ending")
STATES = {"PENDING": "queued", "REQUEUED": "queued", "REQUEUE_HOLD": "queued", "COMPLETING": "ending"}
SHORTEST_WATCH = 10


@dataclass(frozen=True)
class RunStatus:
    """One line of the table.

    Attributes
    ----------
    name, state : str
        finished, running, queued, ending, failed (it left SLURM's queue unfinished), stopped (it made steps, and no
        process is training it) or not started.
    step, steps : int
    best : float or None
        Validation PSNR, dB.
    rate : float or None
        Steps per second; known while it runs.
    job : str
        Number of its SLURM job, if it has one.
    note : str
        Why it waits, where it runs, or its last error message.
    """

    name: str
    state: str
    step: int
    steps: int
    best: float | None
    rate: float | None
    job: str
    note: str

    def cells(self) -> list[str]:
        left = format_seconds((self.steps - self.step) / self.rate) if self.rate else ""
        return [self.name, self.state, f"{self.step:,}", f"{self.steps:,}",
                "" if self.best is None else f"{self.best:.2f}", f"{self.rate:.3g}" if self.rate else "", left,
                self.job, self.note]


@dataclass(frozen=True)
class Status:
    """The runs of a job file in its order, and lines about its other jobs in SLURM's queue."""

    runs: list[RunStatus]
    others: list[str]

    @property
    def is_going(self) -> bool:
        return bool(self.others) or any(run.state in GOING for run in self.runs)


def read_status(job: JobFile, experiments: Sequence[Experiment]) -> Status:
    """Return the state of every run."""
    record = read_record(job.out)
    numbers = record.get("runs", {})
    queue = None
    if slurm.has_slurm():
        try:
            queue = slurm.read_queue()
        except Failed as failed:
            print(f"{failed}; this table shows only what the run folders say", file=sys.stderr)
    runs = [_read_run(experiment, numbers.get(run_key(experiment.out), ""), queue, job.logs)
            for experiment in experiments]
    ours = {run_key(experiment.out) for experiment in experiments}
    foreign = [number for run, number in numbers.items() if run not in ours and number in (queue or {})]
    others = [f"{what} is {STATES.get(queue[number].state, 'running')}: job {number}, {queue[number].reason}"
              for what, number in (("data set", read_record(job.data).get(DATA)), ("report", record.get(REPORT)))
              if number in (queue or {})]
    if foreign:
        others.append(f"launched here with other settings, and in the queue: {', '.join(foreign)}")
    return Status(runs, others)


def _read_run(experiment: Experiment, number: str, queue: dict[str, slurm.Queued] | None, logs: Path) -> RunStatus:
    run = RunFolder(experiment.out)
    history = read_history(run.metrics)
    step = history[-1]["step"] if history else 0
    scores = [record["validation"]["psnr"] for record in history if record.get("validation", {}).get("psnr")]
    rates = [record["samples_per_second"] for record in history if record.get("samples_per_second")]
    holder = read_lock(run.path)
    queued = (queue or {}).get(number) or (queue or {}).get(holder.job if holder and holder.job else "")
    note = ""
    if has_finished(run, experiment):
        state, number = "finished", ""
    elif queued is not None:
        state, number, note = STATES.get(queued.state, "running"), queued.job, queued.reason
    elif is_held(run.path):
        state, note = "running", str(holder)
    else:
        ended = bool(number) and queue is not None  # it was submitted and has left the queue
        note = _last_message(logs, number) if ended else ""
        state = "failed" if ended else "stopped" if step else "not started"
    rate = rates[-1] / experiment.train.batch_size if rates and state == "running" else None
    return RunStatus(run.name, state, step, experiment.train.steps, max(scores, default=None), rate, number, note)


def _last_message(logs: Path, number: str) -> str:
    """Return the last error in a job's logs: a line of ours, else an exception, else a line of srun or SLURM."""
    lines = [line for log in sorted(logs.glob(f"{number}_*_log.err")) for line in
             log.read_text(errors="replace").splitlines()]
    for wanted in (r"(error|failed): ", r"[\w.]*(Error|Exception)\b", r"(slurmstepd|srun).*: error: "):
        words = [line for line in lines if re.match(wanted, line)]
        if words:
            return words[-1][:160]
    return f"see {logs}/{number}_*" if lines else f"never started; see 'scontrol show job {number}'"


def format_status(status: Status) -> str:
    """Return the table as aligned text, followed by the number of runs in each state and the other queued jobs."""
    runs = status.runs
    rows = [list(HEADS), *(run.cells() for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    lines = ["  ".join(cell.rjust(width) if column in NUMBERS else cell.ljust(width)
                       for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
             for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths[:-1]))
    counts = {state: sum(run.state == state for run in runs) for state in dict.fromkeys(run.state for run in runs)}
    return "\n".join([*lines, "", ", ".join(f"{count} {state}" for state, count in counts.items()), *status.others])


def build_parser() -> Parser:
    parser = Parser("status", __doc__)
    add_job_file(parser)
    parser.add_argument("--watch", type=int, default=0, metavar="SECONDS",
                        help="repeat every so many seconds (at least 10) until nothing is queued or running")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    job, experiments, arguments = read_job(build_parser(), argv)
    if arguments.watch and arguments.watch < SHORTEST_WATCH:
        raise InputError(f"--watch: must be at least {SHORTEST_WATCH} seconds, to spare SLURM's controller, "
                         f"found {arguments.watch}")
    with contextlib.suppress(KeyboardInterrupt):  # the usual way to end --watch
        while True:
            status = read_status(job, experiments)
            if arguments.watch and sys.stdout.isatty():
                print("\033[H\033[J", end="")
            print(f"{time.strftime('%H:%M:%S')}  {job.out}\n\n{format_status(status)}", flush=True)
            if not arguments.watch or not status.is_going:
                return
            time.sleep(arguments.watch)


if __name__ == "__main__":
    sys.exit(exit_status(main))
