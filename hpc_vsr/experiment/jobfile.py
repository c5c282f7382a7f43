"""A job file in ``jobs/``: an experiment, its sweep, the recipe of its data, and the resources that its jobs ask for.

`read_job` is the only reader of job files. `train`, `launch`, `status` and `job` use it.
"""

from __future__ import annotations

import dataclasses
import functools
import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_vsr.data.manifest import NAME as MANIFEST
from hpc_vsr.data.recipe import Recipe, read_recipe
from hpc_vsr.experiment.finished import has_finished
from hpc_vsr.experiment.resources import Resources
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.experiment.sweep import SECTION, SWEPT, expand, read_sweep
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system.config import as_dict
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import not_found
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
    def name(self) -> str:
        return RunFolder(self.out).name

    @property
    def logs(self) -> Path:
        return Path("logs") / self.name

    @property
    def report(self) -> Path:
        return RunFolder(self.out).report

    @functools.cached_property
    def recipe_of_data(self) -> Recipe | None:
        """The recipe, if it makes the data set of this job; with another `--data` it is not used."""
        recipe = None if self.recipe is None else read_recipe(self.recipe)
        return recipe if recipe is not None and recipe.folder.resolve() == self.data.resolve() else None

    @property
    def needs_data(self) -> bool:
        """True if the data set is missing and the recipe makes it."""
        return not (self.data / MANIFEST).exists() and self.recipe_of_data is not None

    def check_source(self) -> None:
        """Raise `MissingSource` if a source of the recipe does not exist."""
        recipe = self.recipe_of_data
        for source in recipe.sources:
            if not glob.has_magic(str(source)) and not source.exists():
                raise MissingSource(f"{self.recipe}: {recipe.source_setting}: {not_found(source)}; put it there, or "
                                    "preprocess another source yourself and name its data set with --data")


# The settings that users give most often; every --help shows them first.
MOST_CHANGED = ("data", "out", "train.from_", "model.name", "train.steps", "train.batch_size", "train.lr")
SHORT = {"train.from": "--from"}


def add_job_file(parser: Parser, settings: type[Experiment] = JobFile) -> None:
    """Add --config and its settings to a command line; `read_job` reads them.

    A command that needs only the `Experiment` ignores the rest of the file.
    """
    ignored = {field.name for field in dataclasses.fields(JobFile)} - {field.name for field in
                                                                       dataclasses.fields(settings)}
    parser.add_settings(settings, "--config", also=(*sorted(ignored), SECTION), first=MOST_CHANGED, short=SHORT)


def read_job(parser: Parser, argv: Sequence[str] | None) -> tuple[Any, list[Experiment], Any]:
    """Return the job of a command line, the runs that it stands for, and all other arguments.

    The job is a `JobFile`, or an `Experiment` if the parser has only its settings. If no run folder is given, it is
    named after the file.
    """
    job, arguments = parser.parse(argv)
    if job.out is None:
        if arguments.config is None:
            raise InputError("--out is missing: name the run folder, such as --out runs/delta")
        job = dataclasses.replace(job, out=Path("runs") / arguments.config.stem)
    experiment = Experiment(**{field.name: getattr(job, field.name) for field in dataclasses.fields(Experiment)})
    where = str(arguments.config)
    sections = {section: as_dict(getattr(job, section)) for section in SWEPT}
    given = {f"{section}.{key}": value for section, settings in sections.items() for key, value in settings.items()
             if f"{section}.{key}" in parser.given}
    grids = read_sweep(parser.file_content, where, given)
    from_file = {f"{section}.{key}" for section in SWEPT for key in parser.file_content.get(section, {})}
    return job, expand(experiment, grids, where, {*from_file, *parser.given}), arguments


def list_pending(experiments: Sequence[Experiment]) -> list[Experiment]:
    """Return the experiments that have not been trained to their last step."""
    return [experiment for experiment in experiments if not has_finished(RunFolder(experiment.out), experiment)]
