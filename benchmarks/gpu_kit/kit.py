"""The base of every check: the device, sizes that suit it, a folder, and the form of a record."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import io
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
WARMING = 0.1  # seconds before a rate of a GPU is taken
PR_SET_PDEATHSIG = 1  # of Linux
# `python -m` in a process that ends with its parent; not by preexec_fn, which may hang beside other threads
END_WITH_PARENT = f"""
import ctypes, runpy, signal, sys
ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, signal.SIGKILL)
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
SAMPLE = ROOT / "preprocess" / "sample" / "diamond.mp4"


@dataclass(frozen=True)
class Sizes:
    """Amounts of work: enough to keep a card busy, or just enough for a CPU to run every line.

    Attributes
    ----------
    lr : (int, int)
        Height and width of an LR frame whose rate is measured.
    patch, batch : int
        Side of a patch in LR pixels, and patches in a training step.
    seconds : float
        Time for which a candidate is repeated in a turn.
    turns : int
    steps : int
        Steps of the short trainings.
    matrix : int
        Side of the matrices of a product.
    megabytes : int
        Amount that is copied to measure the bandwidth.
    """

    lr: tuple[int, int]
    patch: int
    batch: int
    seconds: float
    turns: int
    steps: int
    matrix: int
    megabytes: int


CARD = Sizes((150, 225), 64, 16, 0.4, 3, 12, 8192, 2048)
SMALL = Sizes((16, 20), 12, 1, 0.01, 1, 4, 256, 16)


@dataclass
class Kit:
    """Everything that a check needs.

    Attributes
    ----------
    device : torch.device
    folder : Path
        Folder for the files of the checks; kept between the checks of a worker.
    clip : Path
        Video for training and upscaling.
    seconds : float
        Time that the check may take.
    """

    device: torch.device
    folder: Path
    clip: Path = SAMPLE
    seconds: float = 60.0

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def sizes(self) -> Sizes:
        return CARD if self.on_gpu else SMALL

    @property
    def precisions(self) -> list[str]:
        """Precisions in which networks train here."""
        return ["fp32", "bf16", "fp16"] if self.on_gpu else ["fp32", "bf16"]

    @property
    def half(self) -> str:
        """The 16-bit precision that `auto` would take on this GPU; bf16 on a CPU."""
        from hpc_vsr.models.precision import check_precision

        try:
            check_precision("bf16", self.device)
        except Exception:
            return "fp16"
        return "bf16"

    def finish(self) -> None:
        """Wait for everything that was launched."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def random(self, *shape: int) -> torch.Tensor:
        """Return values 0..1 on the device; never zeros, which some processors multiply faster."""
        return torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(self.device)

    @functools.cached_property
    def dataset(self) -> Path:
        """A small data set of a moving pattern, made from PNG files, so that PyAV is not needed."""
        import cv2
        from patterns import moving_pattern

        out = self.folder / "pattern"
        if not (out / "dataset.json").exists():
            frames = self.folder / "frames"
            frames.mkdir(parents=True, exist_ok=True)
            height, width = (96, 128) if self.on_gpu else (48, 64)
            for number, rgb in enumerate(moving_pattern(40, height, width)):
                cv2.imwrite(str(frames / f"{number:04d}.png"), rgb[..., ::-1])
            self.command("preprocess", "--frames", frames, "--shards", 4, "--out", out)
        return out

    def arguments(self, run: Path, **more: Any) -> list[Any]:
        """Return the arguments of a short training on `dataset`; `more` are settings of [train]."""
        settings = {"steps": self.sizes.steps, "batch_size": 4, "patch_size": 12, "warmup_steps": 2, "log_every": 1,
                    "validate_every": 0, "checkpoint_every": 1000, "device": self.device.type, "precision": "fp32",
                    **more}
        words = ["--data", self.dataset, "--out", run, "--model.n_2d", 1, "--model.n_3d", 1, "--model.skip", "wiener",
                 "--evaluate.precision", "fp32"]
        return words + [word for name, value in settings.items() for word in (f"--train.{name}", value)]

    def command(self, stage: str, *words: Any, status: int = 0) -> str:
        """Run `python -m hpc_vsr.STAGE` in this process, check its status, and return its standard error."""
        said = io.StringIO()
        with contextlib.redirect_stderr(_Both(said, sys.stderr)), contextlib.redirect_stdout(sys.stderr):
            found = self.status(stage, *words)
        if found != status:
            raise Wrong(f"{stage} ended with {found} instead of {status}: {last_line(said.getvalue())}")
        return said.getvalue()

    def status(self, stage: str, *words: Any) -> int:
        from hpc_vsr.system.errors import exit_status

        name = f"hpc_vsr.{stage}.__main__" if stage in ("upscale", "doctor", "report", "export") else f"hpc_vsr.{stage}"
        return exit_status(importlib.import_module(name).main, [_text(word) for word in words])

    def start(self, stage: str, *words: Any, environment: Mapping[str, str] | None = None) -> subprocess.Popen:
        """Start `python -m hpc_vsr.STAGE` in a process that ends with this one; its output can be read."""
        paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        return subprocess.Popen(
            [sys.executable, "-c", END_WITH_PARENT, f"hpc_vsr.{stage}", *(_text(word) for word in words)], text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **(environment or {})},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.folder)


def end_with_parent() -> None:
    """Have the kernel kill this process as soon as its parent has ended, however that ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Wrong(AssertionError):
    """Failure of a check, in one line."""


class _Both(io.TextIOBase):
    def __init__(self, *streams):
        self.streams = streams

    def write(self, text: str) -> int:
        for stream in self.streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self.streams:
            stream.flush()


Check = Callable[[Kit], Iterator[dict]]


@dataclass(frozen=True)
class Item:
    """A check: a generator of records, each kept as soon as it is yielded.

    Attributes
    ----------
    name : str
    run : callable
        Kit to an iterator of records; see `record`.
    estimate : float
        Seconds on a card; the check is skipped if less is left.
    limit : float
        Seconds after which its process is killed.
    """

    name: str
    run: Check
    estimate: float
    limit: float


def record(what: str, ok: bool | None, **figures: Any) -> dict:
    """Return one line of the results.

    Parameters
    ----------
    what : str
    ok : bool or None
        None for a figure that is neither right nor wrong, or for a check that this machine cannot run.
    figures
        Numbers with their unit in the name, and notes.
    """
    return {"what": what, "ok": ok, **figures}


def compare_rates(kit: Kit, candidates: Mapping[str, Callable[[], Any]], amount: float, unit: str) -> Iterator[dict]:
    """Yield the median rate of several ways of the same work, and its ratio to the first within a turn."""
    rates: dict[str, list[float]] = {name: [] for name in candidates}
    for work in candidates.values():
        for _ in range(3):
            work()
        kit.finish()
    for _ in range(kit.sizes.turns):
        for name, work in candidates.items():
            rates[name].append(amount * rate(kit, work))
    first = next(iter(rates))
    for name, found in rates.items():
        ratio = statistics.median(one / other for one, other in zip(found, rates[first], strict=True))
        yield record(name, None, **{unit: round(statistics.median(found), 3)}, ratio=round(ratio, 3), against=first)


def rate(kit: Kit, work: Callable[[], Any], at_least: int = 2) -> float:
    """Return calls per second; on a GPU by its own clock."""
    if not kit.on_gpu:
        count, started = 0, time.perf_counter()
        while count < at_least or time.perf_counter() - started < kit.sizes.seconds:
            work()
            count += 1
        return count / (time.perf_counter() - started)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    warm, started = 0, time.perf_counter()
    while warm < 3 or time.perf_counter() - started < WARMING:  # libraries are loaded, kernels chosen, clocks rise
        work()
        torch.cuda.synchronize()
        warm += 1
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    count = max(at_least, min(10_000, int(kit.sizes.seconds / max(time.perf_counter() - started, 1e-6))))
    begin.record()
    for _ in range(count):
        work()
    end.record()
    torch.cuda.synchronize()
    return 1e3 * count / begin.elapsed_time(end)


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["(nothing was said)"])[-1][:300]


def _text(word: Any) -> str:
    return str(word).lower() if isinstance(word, bool) else str(word)


def first_difference(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], names: Sequence[str] = ()
                     ) -> float:
    """Return the largest difference of two sets of weights; 0 if they are equal to the bit."""
    return max(((one[name].double() - other[name].double()).abs().max().item() for name in names or one), default=0.0)
