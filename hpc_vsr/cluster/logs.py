"""Reads the logs of a SLURM job: where they are, and the line that says how its last life ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LAST_BYTES = 200_000  # of a log that are read; the end says how the job ended
LONGEST = 200  # characters of a line that are shown
# SLURM starts a job again after these lines: what is above them was an earlier life
LIFE_ENDS = re.compile(r"goes back to the queue|DUE TO (PREEMPTION|NODE FAILURE|JOB REQUEUE)")
OURS = re.compile(r"(error|failed): ")
STOPPED = re.compile(r"stopped: |interrupted; |.*(CANCELLED AT|DUE TO (TIME LIMIT|PREEMPTION|NODE FAILURE|JOB REQU))")
MEMORY = re.compile(r".*(oom[-_ ]kill|OUT[ _]OF[ _]MEMORY|Exceeded job memory limit|memory limit)", re.IGNORECASE)
EXCEPTION = re.compile(r"[\w.]*(Error|Exception)\b")
SLURM = re.compile(r"(slurmstepd|srun|slurmd)\S*: ")
# A line of the batch script: when the job fails, the line that says why comes last, behind those of srun. If the main
# rank has none, another rank's log may have it. An exception that nobody has caught says it where no line of ours does.
SAY_LAST = (r"""log=$(readlink /proc/$$/fd/2); begun=$(stat -c %s "$log"); trap 'status=$?; """
            r"""raised="^[A-Za-z0-9_.]*(Error|Exception)(:|\$)"; [ $status -eq 0 ] || """
            r"""{ grep -hE "$raised" "${log%_0_log.err}"_[1-9]*_log.err; tail -c +$((begun + 1)) "$log" | """
            r"""grep -E "$raised"; grep -hE "^(error|failed): " "${log%_0_log.err}"_[1-9]*_log.err; """
            r"""tail -c +$((begun + 1)) "$log" | grep -E "^(error|failed|stopped): "; } 2>/dev/null | tail -n 1 | """
            r"""sed "s/^/the job ends with status $status: /" >&2' EXIT""")
WRAPPER = "the stage ended with exit status"  # of earlier versions, behind the line that says why


@dataclass(frozen=True)
class End:
    """How the last life of a job ended, as its logs say.

    Attributes
    ----------
    kind : {"failed", "stopped", "cancelled", "silent", "none"}
        stopped: by a signal, its time limit or a cancellation; cancelled: by `launch --cancel`, and its logs do not say
        how it ended; silent: the logs do not say; none: there is no log.
    line : str
        The line that says it; empty if none does.
    log : Path or None
        The file with that line, or the main one.
    """

    kind: Literal["failed", "stopped", "cancelled", "silent", "none"]
    line: str = ""
    log: Path | None = None


def find_logs(folder: Path, number: str) -> list[Path]:
    """Return the logs of a job, that of its main rank first.

    `folder` holds the logs of `launch`, ``12_3_0_log.err`` for rank 0 of element 3 of array 12. The scripts of slurm/
    log beside it, to ``NAME-12_3.log``.
    """
    def rank(path: Path) -> int:
        return int(path.name.removeprefix(f"{number}_").partition("_")[0])

    ours = [path for path in folder.glob(f"{number}_*_log.err")
            if re.fullmatch(rf"{re.escape(number)}_\d+_log\.err", path.name)]
    return [*sorted(ours, key=rank), *sorted(folder.parent.glob(f"*-{number}.log"))]


def read_end(logs: list[Path]) -> End:
    """Return how the last life of a job ended.

    What the program says comes before SLURM's word on memory, exceptions and SLURM's other lines: SLURM also says that
    it cancelled the other ranks of a job after one has failed.
    """
    lines = [(line, log) for log in logs for line in _last_life(log)]
    for kind, pattern in (("failed", OURS), ("failed", MEMORY), ("failed", EXCEPTION), ("stopped", STOPPED)):
        found = [(line, log) for line, log in lines if pattern.match(line) and WRAPPER not in line]
        if found:
            line, log = found[-1] if kind == "stopped" or pattern is not OURS else _first_rank(found)
            return End(kind, line[:LONGEST], log)
    said = [(line, log) for line, log in lines if SLURM.match(line)]
    if said:
        return End("failed", said[-1][0][:LONGEST], said[-1][1])
    return End("silent", "", logs[0]) if logs else End("none")


def _first_rank(found: list[tuple[str, Path]]) -> tuple[str, Path]:
    """Return the last of the lines of the first rank that has one: the others fail after it."""
    return [(line, log) for line, log in found if log == found[0][1]][-1]


def _last_life(log: Path) -> Iterator[str]:
    """Yield the lines of a log since SLURM has last started its job."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - LAST_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return
    start = max((number for number, line in enumerate(lines, 1) if LIFE_ENDS.search(line)), default=0)
    # after the last requeue there may be nothing yet: then that requeue is what the log says
    yield from lines[start:] if any(line.strip() for line in lines[start:]) else lines[max(0, start - 1):]
