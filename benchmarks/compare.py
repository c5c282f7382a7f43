"""Times several ways of doing the same work in turn, prints a table of ratios, and keeps the measurements.

The machines are shared, so a rate of one minute says little beside a rate of another. Therefore the candidates take
turns, and a ratio is the median of the ratios within each turn.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
LIBRARIES = ("torch", "triton", "numpy", "opencv-python-headless", "av", "h5py")


@dataclass(frozen=True)
class Comparison:
    """The rates of candidates in every turn.

    Attributes
    ----------
    title : str
        The work, with its size.
    unit : str
        Unit of the rates, such as "frames/s".
    rates : dict
        {candidate: [rate in each turn]}; the others are compared with the first candidate.
    limit : str
        The candidate that bounds the others, if there is one: no way of doing the work is faster.
    notes : dict
        {candidate: a remark, such as its memory}.
    """

    title: str
    unit: str
    rates: dict[str, list[float]]
    limit: str = ""
    notes: dict[str, str] = field(default_factory=dict)

    def ratio(self, candidate: str, other: str) -> float:
        """Return the median over the turns of the ratio of two rates."""
        return statistics.median(one / two for one, two in zip(self.rates[candidate], self.rates[other], strict=True))

    def format(self) -> str:
        """Return the comparison as a Markdown table."""
        first = next(iter(self.rates))
        heads = ["", self.unit, "lowest", "highest", f"x {first}", *([f"of {self.limit}"] if self.limit else []),
                 *(["note"] if self.notes else [])]
        rows = [heads]
        for name, rates in self.rates.items():
            cells = [name, *(_figure(rate) for rate in (statistics.median(rates), min(rates), max(rates))),
                     f"{self.ratio(name, first):.2f}"]
            if self.limit:
                cells.append(f"{100 * self.ratio(name, self.limit):.0f} %")
            if self.notes:
                cells.append(self.notes.get(name, ""))
            rows.append(cells)
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        left = {0, len(heads) - 1 if self.notes else 0}
        lines = ["| " + " | ".join(cell.ljust(width) if index in left else cell.rjust(width)
                                   for index, (cell, width) in enumerate(zip(row, widths, strict=True))) + " |"
                 for row in rows]
        rule = "|" + "|".join("-" * (width + 2) if index in left else "-" * (width + 1) + ":"
                              for index, width in enumerate(widths)) + "|"
        return "\n".join([f"{self.title}", "", lines[0], rule, *lines[1:]])


def take_turns(candidates: Mapping[str, Callable[[], float]], turns: int) -> dict[str, list[float]]:
    """Return {candidate: its rate in each turn}; every turn calls each candidate once, in order."""
    rates: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(turns):
        for name, measure in candidates.items():
            rates[name].append(measure())
    return rates


def rate_of(work: Callable[[], Any], amount: float, seconds: float = 0.0, device: torch.device | None = None
            ) -> Callable[[], float]:
    """Return a candidate for `take_turns` that repeats `work`, `amount` units each time, for at least `seconds`."""
    def measure() -> float:
        count, started = 0, time.perf_counter()
        while count == 0 or time.perf_counter() - started < seconds:
            work()
            count += 1
            if device is not None and device.type == "cuda":
                torch.cuda.synchronize()
        return amount * count / (time.perf_counter() - started)
    return measure


@contextlib.contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Let the processes that this thread starts meanwhile run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def build_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="number of times each candidate is measured (default: 3)")
    parser.add_argument("--results", type=Path, default=HERE / "results", metavar="DIR",
                        help="folder in which the figures are appended (default: benchmarks/results)")
    return parser


def publish(name: str, comparisons: Sequence[Comparison], arguments: argparse.Namespace) -> None:
    """Print the tables and append them, with the machine, to ``results/NAME.jsonl``."""
    machine = describe_machine()
    print(f"{machine['cpu']}, {machine['cores']} cores{', ' + machine['gpu'] if machine['gpu'] else ''}; load "
          f"{machine['load_before']} before; "
          + ", ".join(f"{library} {version}" for library, version in machine["libraries"].items()))
    options = {key: str(value) for key, value in vars(arguments).items() if key != "results"}
    arguments.results.mkdir(parents=True, exist_ok=True)
    with (arguments.results / f"{name}.jsonl").open("a") as stream:
        for comparison in comparisons:
            print(f"\n{comparison.format()}", flush=True)
            stream.write(json.dumps({
                "date": time.strftime("%Y-%m-%d"), "title": comparison.title, "unit": comparison.unit,
                "rates": {key: [float(f"{rate:.5g}") for rate in rates] for key, rates in comparison.rates.items()},
                "limit": comparison.limit, "notes": comparison.notes, "options": options, "machine": machine}) + "\n")


LOAD_BEFORE = round(os.getloadavg()[0], 2)  # at the start of the benchmark


def describe_machine() -> dict[str, Any]:
    """Return the facts on which the figures depend."""
    from hpc_vsr.models.precision import device_name

    return {"cpu": device_name(torch.device("cpu")), "cores": len(os.sched_getaffinity(0)),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "", "load_before": LOAD_BEFORE,
            "python": platform.python_version(), "commit": _commit(),
            "libraries": {name: version for name in LIBRARIES if (version := _version(name))}}


def _commit() -> str:
    """Return the commit of this copy of the project; empty without git or a repository."""
    with contextlib.suppress(OSError):
        return subprocess.run(["git", "-C", HERE, "rev-parse", "--short", "HEAD"], capture_output=True, text=True,
                              check=False).stdout.strip()
    return ""


def _version(library: str) -> str:
    """Return the version of a library; empty if it is missing, such as PyAV where nothing is decoded."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(library)
    return ""


def _figure(value: float) -> str:
    """Return a number with three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def main() -> None:
    """Print the tables of a file of results."""
    for line in Path(sys.argv[1]).read_text().splitlines():
        record = json.loads(line)
        machine = record["machine"]
        kept = {item.name: record[item.name] for item in dataclasses.fields(Comparison)}
        print(f"{record['date']}, {machine['gpu'] or machine['cpu']}, {machine['cores']} cores, commit "
              f"{machine['commit']}: {Comparison(**kept).format()}\n")


if __name__ == "__main__":
    main()
