"""The material of the faults: a small clip, its data set, a trained run, and what each stage makes undisturbed."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from disk import AtOperation
from inputs import must, write_field, write_images
from patterns import moving_pattern
from sandbox import Outcome, Process, call, files_below, run
from trainings import TINY, as_toml, final_weights
from videos import write_video

OF_THE_JOB = ("--train.steps", 4, "--train.validate_every", 2, "--train.checkpoint_every", 1, "--evaluate.pictures", 1)


@dataclass(frozen=True)
class Undisturbed:
    """What a stage makes without a fault, and how it goes.

    Attributes
    ----------
    product : dict
        As `Stage.product` gives it.
    files : set of str
        All files below its folder.
    seconds : float
    operations : int
        Writes, flushes and renames.
    largest : int
        Bytes of its largest file.
    """

    product: dict[str, str]
    files: set[str]
    seconds: float
    operations: int
    largest: int


@dataclass
class Stage:
    """A command, what it needs beside it, and what it must have made in the end.

    Attributes
    ----------
    title : str
        Its name, and what it does if several do different things.
    prepare : callable
        Puts into a folder what the command needs and gives its arguments, which name that folder.
    product : callable
        {name: digest} of what must come out the same after any fault.
    out : str
        The file or folder that the stage writes, below the folder.
    place : Path
        Folder in which it is run undisturbed, at the first need.
    """

    title: str
    prepare: Callable[[Path], list]
    product: Callable[[Path], dict[str, str]]
    out: str
    place: Path

    @property
    def name(self) -> str:
        return self.title.split()[0]

    @functools.cached_property
    def undisturbed(self) -> Undisturbed:
        counter = self.place.with_name(f"{self.place.name}.operations")
        done = must(self.run(self.place, AtOperation(self.place, -1, counter=counter)))
        return Undisturbed(self.product(self.place), files_below(self.place), done.seconds, int(counter.read_text()),
                           max(path.stat().st_size for path in self.place.rglob("*") if path.is_file()))

    def run(self, folder: Path, fault=None, **more) -> Outcome:
        return run(self.name, self.prepare(folder), folder, fault, **more)

    def start(self, folder: Path) -> Process:
        _ = self.undisturbed  # known before the process runs, because the moment of the fault follows from it
        return Process(self.name, self.prepare(folder), folder)

    def faults_of(self, folder: Path) -> str | None:
        """Return what is not as it must be, or None."""
        try:
            found = self.product(folder)
        except Exception as error:  # whatever is wrong with it, it is lost
            return f"{type(error).__name__}: {error}"
        wanted, files = self.undisturbed.product, self.undisturbed.files
        differing = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        stray = sorted(name for name in files ^ files_below(folder) if not name.startswith("logs/"))  # one a job
        return (f"differs: {differing[:3]}" if differing else None) or (
            f"stray or missing: {stray[:4]}" if stray else None
        )


class World:
    """Made once; what the stages make here without a fault is what they must make with one."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.clip = write_video(folder / "clip.mp4", moving_pattern(24, 48, 64), gop=8)
        self.data, self.runs = folder / "data", folder / "runs"
        self.field = write_field(folder / "field.nc")
        self.images = write_images(folder / "images", self.clip, 6)
        must(run("preprocess", ["--video", self.clip, "--shards", 5, "--out", self.data], folder))
        must(run("train", ["--data", self.data, "--out", self.runs / "tiny", *TINY], folder))
        shutil.copytree(self.runs / "tiny", self.runs / "unmeasured")
        must(run("evaluate", ["--run", self.runs / "tiny"], folder))
        must(run("preprocess",
                 ["--field", self.field, "--variable", "speed", "--shards", 3, "--out", folder / "field_data",
                  "--degradation.sigma", 1], folder))
        must(run("train", ["--data", folder / "field_data", "--out", self.runs / "field", *TINY], folder))
        self.stages = {stage.title: stage for stage in self._build_stages()}

    def _build_stages(self) -> list[Stage]:
        def run_copy(name: str) -> Callable[[Path], Path]:
            def copy(folder: Path) -> Path:
                target = folder / "tiny"
                if not target.exists():
                    shutil.copytree(self.runs / name, target)
                return target

            return copy

        unmeasured, measured = run_copy("unmeasured"), run_copy("tiny")
        job = self.folder / "job.toml"
        job.write_text(f'data = "{self.data}"\n{as_toml([*TINY, *OF_THE_JOB])}')
        tiny, field = ["--run", self.runs / "tiny"], ["--run", self.runs / "field"]
        described = [
            ("preprocess", lambda folder: ["--video", self.clip, "--shards", 5, "--out", folder / "data"],
             lambda folder: _digests(folder / "data", "*"), "data"),
            ("train", lambda folder: ["--data", self.data, "--out", folder / "run", *TINY],
             lambda folder: weights(folder / "run"), "run"),
            ("evaluate", lambda folder: ["--run", unmeasured(folder)],
             lambda folder: _digests(folder / "tiny", "metrics-test.json"), "tiny"),
            ("report", lambda folder: [measured(folder), "--out", folder / "report"],
             lambda folder: _digests(folder / "report", "report.json"), "report"),
            ("upscale", lambda folder: [*tiny, "--input", self.clip, "--output", folder / "out.mp4", "--precision",
                                        "fp32", "--segment", 6],
             lambda folder: _digests(folder, "out.mp4"), "out.mp4"),
            ("upscale a field", lambda folder: [*field, "--input", self.field, "--variable", "speed", "--output",
                                                     folder / "out.nc", "--precision", "fp32", "--stop", 4],
             lambda folder: {"speed": _values(folder / "out.nc")}, "out.nc"),
            ("upscale images", lambda folder: [*tiny, "--input", self.images, "--output", folder / "out",
                                                    "--precision", "fp32", "--stop", 4],
             lambda folder: _digests(folder / "out", "*"), "out"),
            ("launch", lambda folder: ["--config", job, "--out", folder / "run", "--cluster", "debug"],
             lambda folder: weights(folder / "run"), "run"),
        ]
        return [Stage(title, *more, self.folder / "reference" / title) for title, *more in described]


def weights(run_folder: Path) -> dict[str, str]:
    """Digests of the tensors of the last checkpoint, and its step."""
    tensors = final_weights(run_folder)
    return {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in tensors.items()}


def _values(path: Path) -> str:
    """All but the line of history, which has the time."""
    place = path.with_name(".said-values")

    def read() -> None:
        import xarray as xr

        with xr.open_dataset(path) as dataset:
            place.write_text(hashlib.sha256(dataset["speed"].values.tobytes()).hexdigest())

    call(read, place.parent)  # netCDF4 has threads
    text = place.read_text()
    place.unlink()
    return text


def _digests(folder: Path, pattern: str) -> dict[str, str]:
    return {path.name: hashlib.sha256(_content(path)).hexdigest()
            for path in folder.glob(pattern) if path.is_file() and not path.name.startswith(".")}


def _content(path: Path) -> bytes:
    if path.name == "metrics-test.json":  # all but how long it took and where it was
        rows = json.loads(path.read_text())["rows"]
        return json.dumps([{key: row[key] for key in row if key != "seconds_per_frame"} for row in rows]).encode()
    return path.read_bytes()
