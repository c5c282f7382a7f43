"""Show the state of every run of a job file, or of every run of a folder: its job, its progress, best score and log.

    python -m hpc_vsr.status --config jobs/ablation_recursion.toml --watch 60
    python -m hpc_vsr.status                                                    every run below runs/

docs/slurm.md has a table of the states. Each time costs SLURM one query of its queue, and none on a machine without it.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hpc_vsr.cluster.overview import Status, read_overview, read_status
from hpc_vsr.cluster.state import FAILED, NEVER, RunState
from hpc_vsr.experiment.jobfile import add_job_file, read_job
from hpc_vsr.experiment.progress import NOT_STARTED, STOPPED
from hpc_vsr.system import slurm
from hpc_vsr.system.errors import InputError, exit_status
from hpc_vsr.system.parser import Parser
from hpc_vsr.system.progress import format_seconds

HEADS = ("run", "state", "step", "of", "best (dB)", "steps/s", "left", "job", "")
LOG_HEADS = ("run", "state", "step", "of", "best (dB)", "job", "log")
NUMBERS = ("step", "of", "best (dB)", "steps/s", "left")
SHORTEST_WATCH = 10
OPTIONS = ("--watch", "--runs")  # those that name no job file


def format_status(status: Status, again: str = "") -> str:
    """Return the table as aligned text, the number of runs in each state, the other jobs, and how to go on.

    `again` is the command that launches the job file again.
    """
    lines = [_format_table(HEADS, [_cells(state) for state in status.runs]), "", _count(status.runs),
             *map(str, status.jobs)]
    # of the jobs, one that is not started was cancelled
    ended = [*(state for state in status.runs if state.state in (STOPPED, FAILED)),
             *(job for job in status.jobs if job.state in (STOPPED, FAILED, NOT_STARTED))]
    if again and ended and status.refused:
        lines.append(f"to go on: launch {', '.join(status.refused)} with "
                     f"{'its' if len(status.refused) == 1 else 'their'} own settings, or choose another --out")
    elif again and ended:
        lines.append(f"to go on: {again}")
    return "\n".join(lines)


def format_overview(status: Status) -> str:
    """Return a table of runs with the log of each, the number of runs in each state, and the other jobs."""
    rows = [[str(state.run.path), state.words, *_figures(state), state.job, _log_of(state)] for state in status.runs]
    return "\n".join([_format_table(LOG_HEADS, rows), "", _count(status.runs), *map(str, status.jobs)])


def _cells(state: RunState) -> list[str]:
    """Return the cells of a run: its note ends the line, because it may be long."""
    rate, steps_left = state.steps_per_second, state.progress.steps - state.progress.step
    left = format_seconds(steps_left / rate) if rate and steps_left >= 0 else ""
    start = state.progress.start
    note = "; ".join(filter(None, [f"fine-tuned from {start.run}, step {start.step}" if start else "", state.note]))
    return [state.run.name, state.words, *_figures(state), f"{rate:.3g}" if rate else "", left, state.job, note]


def _figures(state: RunState) -> list[str]:
    progress = state.progress
    return [f"{progress.step:,}", f"{progress.steps:,}" if progress.steps else "",
            "" if progress.best is None else f"{progress.best:.2f}"]


def _log_of(state: RunState) -> str:
    """Return the log of a run; why it has none, if its job has failed or was cancelled without one."""
    own = state.run.log
    if state.log is None and state.state in (FAILED, NEVER, NOT_STARTED):
        return state.note
    return str(state.log or (own if own.exists() else ""))


def _format_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rows = [list(heads), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    lines = ["  ".join(cell.rjust(width) if head in NUMBERS else cell.ljust(width)
                       for head, cell, width in zip(heads, row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in (widths if heads[-1] else widths[:-1])))
    return "\n".join(lines)


def _count(states: Sequence[RunState]) -> str:
    names = [state.kind for state in states]
    return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))


def build_parser() -> Parser:
    parser = Parser("status", __doc__)
    add_job_file(parser)
    _add_options(parser)
    return parser


def _add_options(parser: Parser) -> None:
    parser.add_argument("--watch", type=int, default=0, metavar="SECONDS",
                        help="repeat every so many seconds (at least 10) until nothing waits or runs")
    parser.add_argument("--runs", type=Path, default=Path("runs"),
                        help="without a job file: show every run below this folder")


def main(argv: Sequence[str] | None = None) -> None:
    words = sys.argv[1:] if argv is None else list(argv)
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    if given <= set(OPTIONS):  # no job file
        parser = Parser("status", __doc__)
        _add_options(parser)
        _, arguments = parser.parse(words)
        _watch(arguments.watch, lambda: _show_overview(arguments.runs))
        return
    job, experiments, arguments = read_job(build_parser(), words)
    again = launch_command(words)

    def show() -> tuple[str, bool]:
        status = read_status(job, experiments)
        return f"{job.out}\n\n{format_status(status, again)}", status.is_going

    _watch(arguments.watch, show)


def _show_overview(folder: Path) -> tuple[str, bool]:
    status = read_overview(folder)
    if not status.runs:
        raise InputError(f"{folder}: has no runs; name a folder with --runs, or a job file with --config")
    return f"{folder}\n\n{format_overview(status)}", status.is_going


def _watch(seconds: int, show: Callable[[], tuple[str, bool]]) -> None:
    """Print what `show` returns, again and again while it says that something is going on."""
    if seconds and seconds < SHORTEST_WATCH:
        raise InputError(f"--watch: must be at least {SHORTEST_WATCH} seconds, to spare SLURM's controller, "
                         f"found {seconds}")
    with contextlib.suppress(KeyboardInterrupt):  # the usual way to end --watch
        while True:
            text, is_going = show()
            if seconds and sys.stdout.isatty():
                print("\033[H\033[J", end="")
            print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)
            if not seconds or not is_going:
                return
            time.sleep(seconds)


def launch_command(words: Sequence[str]) -> str:
    """Return the command that launches what this command line of `status` shows."""
    rest, kept = iter(words), []
    for word in rest:
        if word in OPTIONS:
            next(rest, None)
        elif not word.startswith(tuple(f"{option}=" for option in OPTIONS)):
            kept.append(word)
    where = "slurm" if slurm.has_slurm() else "local"
    return shlex.join(["python", "-m", "hpc_vsr.launch", *kept, "--cluster", where])


if __name__ == "__main__":
    sys.exit(exit_status(main))
