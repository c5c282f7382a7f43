"""Checks in minutes that this GPU computes correctly, and how fast: every check of the GPU path, and real trainings.

    python benchmarks/gpu.py --part check --seconds 330 --out results    numbers, rates, profiles, every command
    python benchmarks/gpu.py --part train --seconds 330 --out results    the clip: trained, measured, upscaled
    python benchmarks/gpu.py --part check --device cpu --seconds 120 --out results     small, to try the kit itself
    python benchmarks/gpu.py --show results/check.jsonl                                the table of earlier results

Results are written to disk at once: one line per record in OUT/PART.jsonl, and the table in OUT/PART.md. The most
important checks come first. A check that crashes or exceeds its limit is killed, and the next one gets a new process. A
check for which no time is left is skipped and named. Without PyAV, checks that decode are skipped; git and a network
are not needed. The exit status is 1 if a check is wrong.

`pip download` prepares the packages for a machine without a network; see benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

STARTING = 60.0  # seconds in which a worker must have loaded torch
COLUMNS = 110  # for the figures in a table


def items_of(part: str, seconds: float) -> list:
    """Return the checks of a part, the most important first."""
    from gpu_kit import commands, correctness, layers, speed, trainings

    if part == "train":
        return trainings.items(seconds)
    # a profiler stays attached to its process and may slow launches: the rates come before it
    return [speed.MACHINE, correctness.DELTA, speed.rates_of("delta", 30), correctness.OTHERS,
            speed.rates_of("parallel5", 45), layers.LAYERS_ITEM, speed.GRAPHS, speed.LOADER, speed.profile_of("delta"),
            speed.profile_of("parallel5"), correctness.NETWORKS, commands.TRAINING, correctness.DDP, commands.RESUME,
            commands.BAD_STEPS, commands.BATCHES, commands.EVALUATION, commands.UPSCALING, commands.TWO_RANKS,
            speed.MEMORY, commands.DOCTOR, commands.MEMORY_FAILURE, commands.EXPORT]


class Worker:
    """A process that runs checks one after the other, until one of them crashes it or it has to be killed."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments, self.process, self._left = arguments, None, b""

    def run(self, item: Any, seconds: float) -> Iterator[dict]:
        """Yield the records of a check, which may take `seconds`."""
        if self.process is not None and self.process.poll() is not None:  # since the last check
            self.stop()
        fresh = self.process is None
        if fresh:
            self._start()
        with contextlib.suppress(BrokenPipeError):  # it has just died, which is found when it is read from
            self.process.stdin.write(f"{json.dumps({'item': item.name, 'seconds': seconds})}\n".encode())
            self.process.stdin.flush()
        deadline = time.monotonic() + seconds + (STARTING if fresh else 0.0)
        while True:
            line = self._read_line(deadline)
            if line is None:
                late = self.process.poll() is None
                self.stop()
                reason = f"was killed after {seconds:.0f} s" if late else f"ended with status {self.process_status}"
                yield {"what": "the check", "ok": False, "error": f"its process {reason}; see log.txt", "killed": late}
                return
            found = json.loads(line)
            if found.get("end"):
                return
            yield found

    def stop(self) -> None:
        """Kill the process and all processes that it has started."""
        if self.process is not None:
            with_children = os.getpgid(self.process.pid) if self.process.poll() is None else None
            if with_children is not None:
                os.killpg(with_children, signal.SIGKILL)
            self.process_status = self.process.wait()
            self.process, self._left = None, b""

    def _start(self) -> None:
        arguments = self.arguments
        command = [sys.executable, __file__, "--worker", "--part", arguments.part, "--device", arguments.device,
                   "--out", arguments.out, "--seconds", arguments.seconds, "--clip", arguments.clip]
        with (arguments.out / "log.txt").open("ab") as log:
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stderr=log,
                                            stdout=subprocess.PIPE, start_new_session=True)

    def _read_line(self, deadline: float) -> bytes | None:
        """Return the next line, or None if the deadline passes or the process ends first."""
        while b"\n" not in self._left:
            stream = self.process.stdout
            if not select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            read = os.read(stream.fileno(), 1 << 16)
            if not read:
                self.process.wait()
                return None
            self._left += read
        line, self._left = self._left.split(b"\n", 1)
        return line


def work(arguments: argparse.Namespace) -> None:
    """Run as a worker: read names of checks from standard input and write records to the original standard output."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # everything that is printed goes to the log
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the checks of signals send some; stop() uses SIGKILL
    from gpu_kit.kit import Kit, Wrong, end_with_parent

    from hpc_vsr.models.precision import device_name
    from hpc_vsr.system.gpus import choose_device, own_device
    from hpc_vsr.system.memory import keep_freed_memory

    end_with_parent()
    keep_freed_memory()
    device = own_device(choose_device(arguments.device))
    folder = arguments.out / f"work-{arguments.part}"
    folder.mkdir(parents=True, exist_ok=True)
    kit = Kit(device, folder.absolute(), arguments.clip.absolute())
    items = {item.name: item for item in items_of(arguments.part, arguments.seconds)}
    for line in sys.stdin:
        asked = json.loads(line)
        kit.seconds = asked["seconds"]
        try:
            for found in items[asked["item"]].run(kit):
                print(json.dumps({**found, "card": device_name(device)}), file=answers)
        except Exception as error:
            traceback.print_exc()
            told = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
            print(json.dumps({"what": "the check", "ok": False, "error": told.splitlines()[0][:400]}), file=answers)
        if kit.on_gpu:
            import torch

            torch.cuda.synchronize()  # a context that a kernel has poisoned ends this process here
            torch.cuda.empty_cache()
        print(json.dumps({"end": True}), file=answers)


def run(arguments: argparse.Namespace) -> list[dict]:
    """Run all checks of a part, and keep their records as they come."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    results, deadline = arguments.out / f"{arguments.part}.jsonl", time.monotonic() + arguments.seconds
    results.unlink(missing_ok=True)
    shutil.rmtree(arguments.out / f"work-{arguments.part}", ignore_errors=True)  # runs of before would count as done
    worker, records = Worker(arguments), []
    with results.open("a") as stream:

        def keep(item: str, found: dict) -> None:
            records.append({"part": arguments.part, "item": item, **found, "at": time.strftime("%Y-%m-%dT%H:%M:%S")})
            stream.write(json.dumps(records[-1]) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
            print(f"{item}: {format_record(records[-1])}", file=sys.stderr, flush=True)

        try:
            for item in items_of(arguments.part, arguments.seconds):
                if arguments.only and not any(word in item.name for word in arguments.only):
                    continue
                left, started = deadline - time.monotonic(), time.monotonic()
                wanted = item.estimate if arguments.device != "cpu" else 0
                if left < wanted or left <= 1:
                    keep(item.name, {"what": "the check", "ok": None, "left_out": f"{max(left, 0):.0f} s were left"})
                    continue
                for found in worker.run(item, min(item.limit, left)):
                    if found.get("killed") and left < item.limit:  # by the end of the whole, not by a limit of its own
                        found = {"what": "the check", "ok": None, "left_out": f"not done in the {left:.0f} s left"}
                    keep(item.name, found)
                keep(item.name, {"what": "time", "ok": None, "s": round(time.monotonic() - started, 2),
                                 "estimate_s": item.estimate})
                (arguments.out / f"{arguments.part}.md").write_text(format_table(records))
        finally:
            worker.stop()
            (arguments.out / f"{arguments.part}.md").write_text(format_table(records))
    return records


def format_record(found: dict) -> str:
    """Return a line such as 'WRONG  Delta, bf16  most grey levels 3.2'."""
    return f"{_state(found):<6} {found['what']}  {_figures(found)}"


def _state(found: dict) -> str:
    return {True: "ok", False: "WRONG", None: ""}[found["ok"]]


def _figures(found: dict) -> str:
    shown = {key: value for key, value in found.items() if key not in ("part", "item", "what", "ok", "at", "card")}
    return ", ".join(f"{key.replace('_', ' ')} {_text(value)}" for key, value in shown.items())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + ")"
    return str(value)


def format_table(records: Sequence[dict]) -> str:
    """Return Markdown: a table of all records, then a list of what is wrong and what was left out."""
    if not records:
        return "Nothing was measured.\n"
    card = next((found["card"] for found in records if "card" in found), "unknown device")
    rows = [("check", "", "what", "figures")]
    last = None
    for found in records:
        if found["what"] == "time":
            continue
        rows.append((found["item"] if found["item"] != last else "", _state(found), found["what"], _figures(found)))
        last = found["item"]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))} | {row[3]} |"
             for row in rows]
    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|---|"
    counts = {state: sum(found["ok"] is state for found in records) for state in (True, False)}
    wrong = [f"- {found['item']}: {found['what']}: {_figures(found)}" for found in records if found["ok"] is False]
    left = sorted({found["item"] for found in records if "left_out" in found})
    seconds = sum(found["s"] for found in records if found["what"] == "time")
    head = f"{card}, {records[0]['at']}: {counts[True]} right, {counts[False]} wrong, in {seconds:.0f} s"
    tail = [*(["", "Wrong:", *wrong] if wrong else []), *(["", f"Left out: {', '.join(left)}"] if left else []), ""]
    return "\n".join([head, "", lines[0], rule, *lines[1:], *tail])


def read_records(path: Path) -> list[dict]:
    """Return the records of a file, whose last line may be cut off."""
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["check", "train"], help="which half of the kit")
    parser.add_argument("--seconds", type=float, default=330.0,
                        help="time for the whole part; checks that do not fit are left out (default: 330)")
    parser.add_argument("--out", type=Path, help="folder of the results; the checks write into its folder work-PART")
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="cuda", help="(default: cuda)")
    parser.add_argument("--clip", type=Path, default=HERE.parent / "preprocess" / "sample" / "diamond.mp4",
                        help="video for part train (default: the bundled one)")
    parser.add_argument("--only", nargs="*", metavar="WORD", help="only checks with one of these words in their name")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the table of earlier results")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser


def main() -> int:
    parser = build_parser()
    arguments = parser.parse_args()
    if arguments.show:
        print(format_table(read_records(arguments.show)))
        return 0
    if arguments.part is None or arguments.out is None:
        parser.error("--part and --out are missing")
    if arguments.worker:
        work(arguments)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the table is still written
    records = run(arguments)
    print(format_table(records))
    return int(any(found["ok"] is False for found in records))


if __name__ == "__main__":
    sys.exit(main())
