"""Compares frames per second of the preprocessing with the usual script and with bounds that no program can exceed.

    python benchmarks/preprocess.py                                     450x300, as in the paper's Diamond video
    python benchmarks/preprocess.py --size 1920x1080 --frames 600

Every candidate is a process of its own that imports what it needs and is timed afterwards, so starting Python does not
count. With --cores 1 everything but the two ranks is limited to one core.

  usual, gzip HDF5    one process, cv2.VideoCapture, Y, blur, halve, one compressed stack at a time
  usual, plain HDF5   the same without compression
  usual, PNG          the same into two folders of pictures
  no I/O              the usual reading and arithmetic; nothing is written
  decode              PyAV's frames, as the decoder leaves them
  write               the bytes of a data set, as fast as this file system takes them
  ours, N ranks       python -m hpc_vsr.preprocess
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
SHARDS = 16


def do_usual(kind: str, video: Path, out: Path) -> Callable[[], None]:
    from usual import WRITERS

    return lambda: WRITERS[kind](video, out)


def do_no_io(video: Path, _out: Path) -> Callable[[], None]:
    from usual import degraded

    def work() -> None:
        for _ in degraded(video):
            pass
    return work


def do_decode(video: Path, _out: Path) -> Callable[[], None]:
    import av

    def work() -> None:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            stream.thread_type, stream.codec_context.thread_count = "AUTO", len(os.sched_getaffinity(0))
            for _ in container.decode(stream):
                pass
    return work


def do_write(video: Path, out: Path) -> Callable[[], None]:
    """Return work that writes as many bytes as our data set of that many frames."""
    import av

    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        num_frames, size = stream.frames, stream.width * stream.height * 5 // 4
    block = os.urandom(size)

    def work() -> None:
        with (out / "raw").open("wb") as stream:
            for _ in range(num_frames):
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
    return work


def do_ours(video: Path, out: Path) -> Callable[[], None]:
    from hpc_vsr.data.build import preprocess
    from hpc_vsr.data.recipe import Recipe
    from hpc_vsr.system.mpi import connect

    comm = connect()

    def work() -> None:
        comm.allgather(None)
        preprocess(Recipe(video=video, shards=SHARDS, out=out / "ours"), comm)
        comm.allgather(None)
    return work


CANDIDATES = {"usual, gzip HDF5": lambda *where: do_usual("gzip HDF5", *where),
              "usual, plain HDF5": lambda *where: do_usual("plain HDF5", *where),
              "usual, PNG": lambda *where: do_usual("PNG", *where),
              "no I/O": do_no_io, "decode": do_decode, "write": do_write, "ours": do_ours}


def child(name: str, video: Path, out: Path) -> None:
    """Run a candidate once, and print how long it took and how much memory this process had at most."""
    import cv2

    cv2.setNumThreads(len(os.sched_getaffinity(0)))
    work = CANDIDATES[name](video, out)
    started = time.perf_counter()
    with (out / "stderr").open("w") as stream, contextlib.redirect_stderr(stream):
        work()
    seconds = time.perf_counter() - started
    # not getrusage, which also counts the process that this one was forked from
    peak, = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    # in one write, because the ranks share a pipe
    sys.stdout.write(json.dumps({"seconds": seconds, "peak_mb": int(peak) / 1024}) + "\n")


def run_child(name: str, video: Path, ranks: int, cores: list[int], scratch: Path) -> tuple[float, float]:
    """Return the seconds of a candidate, and the most memory of one of its processes in MB."""
    from compare import on_cores

    with tempfile.TemporaryDirectory(dir=scratch) as out:
        beside = Path(sys.executable).with_name("mpiexec")
        launcher = [str(beside) if beside.exists() else "mpiexec", "-n", str(ranks)] if ranks > 1 else []
        with on_cores(cores):
            done = subprocess.run([*launcher, sys.executable, __file__, "--child", name, str(video), out], text=True,
                                  stdout=subprocess.PIPE, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    figures = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(figures) == ranks, done.stdout
    return max(each["seconds"] for each in figures), max(each["peak_mb"] for each in figures)


def main() -> None:
    from clips import add_clip, clip_of
    from compare import Comparison, build_parser, publish, take_turns

    parser = build_parser(__doc__)
    add_clip(parser, 1500)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="for our preprocessing (default: 1 2)")
    parser.add_argument("--cores", type=int, default=1, help="cores for each candidate and each rank (default: 1)")
    arguments = parser.parse_args()
    video, scratch = clip_of(arguments)
    available = sorted(os.sched_getaffinity(0))
    memory: dict[str, float] = {}

    def candidate(label: str, name: str, ranks: int = 1) -> Callable[[], float]:
        cores = available[: ranks * arguments.cores]

        def measure() -> float:
            seconds, peak = run_child(name, video, ranks, cores, scratch)
            memory[label] = max(memory.get(label, 0), peak)
            return arguments.frames / seconds
        return measure

    candidates = {name: candidate(name, name) for name in CANDIDATES if name != "ours"}
    for ranks in arguments.ranks:
        label = f"ours, {ranks} rank{'s' if ranks > 1 else ''}"
        candidates[label] = candidate(label, "ours", ranks)
    rates = take_turns(candidates, arguments.turns)
    notes = {name: f"{peak:,.0f} MB a process" for name, peak in memory.items()}
    short = [label for label in candidates if label.startswith("ours")
             and int(label.split()[1]) * arguments.cores > len(available)]
    notes.update({label: f"{notes[label]}, ranks share {len(available)} cores" for label in short})
    publish("preprocess", [Comparison(
        f"Preprocessing {arguments.frames} frames of {arguments.size}, {arguments.cores} core(s) a process",
        "frames/s", rates, limit="no I/O", notes=notes)], arguments)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
