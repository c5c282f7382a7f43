"""A job file in ``jobs/``: an experiment, its sweep, the recipe of its data, and the resources that it asks for."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_vsr.data.manifest import NAME as MANIFEST
from hpc_vsr.experiment.finished import has_finished
from hpc_vsr.experiment.read import read_experiment
from hpc_vsr.experiment.resources import Resources
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.experiment.sweep import SECTION, expand, read_sweep, without_given
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system.config import read_toml
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.parser import Parser


class MissingSource(InputError):
    """The error for a recipe whose video, images or field do not exist."""


@dataclass(frozen=True)
class JobFile(Experiment):
    """A job file with the resources that it asks for.

    Attributes
    ----------
    recipe : Path
        Recipe of the data set; with it a missing data set is made first.
    max_parallel : int
        How many runs of a sweep SLURM starts at a time.
    resources : Resources
    """

    recipe: Path | None = None
    max_parallel: int = 8
    resources: Resources = dataclasses.field(default_factory=Resources)

    def __post_init__(self):
        if self.max_parallel < 1:
            raise InputError(f"max_parallel: must be at least 1, found {self.max_parallel}")

    @property
    def experiment(self) -> Experiment:
        return Experiment(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Experiment)})

    @property
    def name(self) -> str:
        return RunFolder(self.out).name

    @property
    def logs(self) -> Path:
        return Path("logs") / self.name

    @property
    def report(self) -> Path:
        return RunFolder(self.out).report


# The settings that users give most often; every --help shows them first.
MOST_CHANGED = ("data", "out", "model.name", "train.steps", "train.batch_size", "train.lr")
# Keys of a job file that do not belong to the experiment; a stage that reads only the experiment ignores them.
OTHER_KEYS = tuple(sorted({field.name for field in dataclasses.fields(JobFile)}
                          - {field.name for field in dataclasses.fields(Experiment)}))


def add_job_file(parser: Parser) -> None:
    """Add --config and every setting of a job file to a command line; `read_job` reads them."""
    parser.add_settings(JobFile, "--config", also=(SECTION,), first=MOST_CHANGED)


def read_job(parser: Parser, argv: Sequence[str] | None) -> tuple[JobFile, list[Experiment], Any]:
    """Return the job of a command line, the runs that it stands for, and all other arguments."""
    job, arguments = read_experiment(parser, argv)
    grids = without_given(read_sweep(arguments.config), argv)
    return job, expand(job.experiment, grids, str(arguments.config)), arguments


def needs_data(job: JobFile) -> bool:
    """Return whether the data set is missing and is the one that the recipe makes.

    With another `--data` the recipe is not used.
    """
    if job.recipe is None or (job.data / MANIFEST).exists():
        return False
    out = read_toml(job.recipe).get("out")
    return isinstance(out, str) and Path(out).resolve() == job.data.resolve()


def check_source(recipe: Path) -> None:
    """Raise `InputError` if a recipe cannot be read, and `MissingSource` if its source does not exist."""
    table = read_toml(recipe)
    for name in ("video", "frames", "field"):
        source = table.get(name)
        if isinstance(source, str) and not glob.has_magic(source) and not Path(source).exists():
            raise MissingSource(f"{recipe}: {name}: {source}: not found; put it there, or preprocess another source "
                             "yourself and name its data set with --data")


def list_pending(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Return the experiments that have not been trained to their last step."""
    return [experiment for experiment in experiments if not has_finished(RunFolder(experiment.out), experiment)]
