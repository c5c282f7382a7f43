"""A recipe and its plan: what will be written, known before the first frame is decoded."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.info import FORMAT_VERSION, DatasetLayout, SourceInfo
from hpc_vsr.data.splits import SPLITS, ShardPlan, SplitFractions, plan_shards, split_frames
from hpc_vsr.media.reading import Damaged, Periodic, Reading, without_cropped
from hpc_vsr.media.source import OPTIONS, Channels, Option, Source, find_kind, open_source
from hpc_vsr.system import files
from hpc_vsr.system.config import as_dict, fingerprint, from_dict, named_in_errors, read_toml
from hpc_vsr.system.errors import InputError

# what hangs on the samples of a split
DEPENDS = {"train": "a network learns from", "val": "the best weights and the Wiener noise are chosen by",
           "test": "every figure is measured on"}


@dataclass(frozen=True)
class Recipe:
    """Recipe of a data set: its source, what is learned from it, and how it is degraded, split and sharded.

    Attributes
    ----------
    video : Path
        Video file of any type that FFmpeg reads.
    frames : Path
        Folder of PNG, TIFF or JPEG images, in the order of the numbers in their names; or one TIFF file with pages.
    field : Path
        NetCDF, HDF5 or Zarr file, or a quoted pattern for several, such as "out_*.nc"; needs --variable.
    variable : str
        Variable of the field, with dimensions (time, y, x), and with its group if it is in one: tasks/vorticity.
        Several, as u,v or in a list, are the channels of one data set, each with its own range and units.
    select : str
        One value of each further dimension of a field, such as "level=500,number=0".
    periodic : str
        Directions in which a field goes on at the other side: none, x, y or xy; auto finds longitudes around the globe.
    bits : int
        Significant bits of images or a video deeper than 8 bits, such as 12; found if not given.
    rate : float
        Frames a second of a video whose file has no time stamps.
    damaged : str
        refuse, or repeat: show the frame before a damaged one again, and count it.
    out : Path
        Folder of the data set; the default is data/NAME, after the source.
    shards : int
        Number of files over all splits; at least one for each stretch of frames without a gap.
    channels : str
        y: luma of BT.601 in full range. rgb: three channels. A field has a channel for each variable.
    degradation : Degradation
    split : SplitFractions
    """

    video: Path | None = None
    frames: Path | None = None
    field: Path | None = None
    variable: str | list[str] | None = None
    select: str | None = None
    periodic: Periodic = "auto"
    bits: int | None = None
    rate: float | None = None
    damaged: Damaged = "refuse"
    out: Path | None = None
    shards: int = 8
    channels: Channels = "y"
    degradation: Degradation = dataclasses.field(default_factory=Degradation)
    split: SplitFractions = dataclasses.field(default_factory=SplitFractions)

    def __post_init__(self):
        if isinstance(self.variable, list):
            object.__setattr__(self, "variable", ",".join(self.variable))
        given = [f"--{name}" for name in OPTIONS if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError("give exactly one of --video, --frames and --field "
                             f"(got {' and '.join(given) or 'none'})")
        takes_variable = self.field is not None and "variable" in find_kind(self.field, "field").arguments
        if takes_variable != (self.variable is not None):
            raise InputError("--field and --variable go together: give the file and the name of the variable in it")
        if self.field is not None and self.channels != "y":
            raise InputError(f"--channels {self.channels}: a field has a channel for each --variable; leave it out")

    @property
    def source_setting(self) -> Option:
        """Setting that names the source."""
        return next(name for name in OPTIONS if getattr(self, name) is not None)

    @property
    def source_path(self) -> Path:
        return getattr(self, self.source_setting)

    @property
    def reading(self) -> Reading:
        """How the source is to be read."""
        return Reading(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Reading)})

    @property
    def folder(self) -> Path:
        stem = self.source_path.absolute().resolve().stem
        return self.out or Path("data") / (re.sub(r"[*?\[\]]+", "", stem).strip("_-.") or "field")


def read_recipe(path: Path) -> Recipe:
    """Return the recipe of a TOML file, without a look at its source."""
    with named_in_errors(path):
        return from_dict(Recipe, read_toml(path), str(path))


@dataclass(frozen=True)
class Plan:
    """Plan of a data set, known before the first frame is decoded; the same on every rank.

    Attributes
    ----------
    source : Source
    layout : DatasetLayout
        dataset.json without the entries of the shards and what follows from their values.
    shards : list of ShardPlan
    """

    recipe: Recipe
    source: Source
    layout: DatasetLayout
    shards: list[ShardPlan]

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes that describe the data set in each shard."""
        layout = self.layout
        units = ", ".join(layout.units) if isinstance(layout.units, list) else layout.units
        return {"dataset_fingerprint": layout.fingerprint, "source": layout.source.name,
                "source_sha256": layout.source.sha256, "channels": ",".join(layout.channels),
                "units": units, "degradation": layout.degradation.kind,
                "sigma": layout.degradation.sigma, "scale": layout.degradation.scale}

    @property
    def num_bytes(self) -> int:
        return sum(plan.num_frames for plan in self.shards) * self.layout.bytes_per_frame

    @property
    def warnings(self) -> list[str]:
        """What the user should know of the source and of the splits."""
        lone = [split for split in SPLITS if self.num_samples(split) == 1]
        return [*self.source.facts.warnings,
                *(f"the split {split} has a single sample, so {DEPENDS[split]} one frame; take more frames or raise "
                  f"--split.{split}" for split in lone)]

    def num_samples(self, split: str) -> int:
        return sum(shard.num_samples for shard in self.shards if shard.split == split)


def plan_dataset(recipe: Recipe) -> Plan:
    """Check the source and lay out the data set; it writes nothing and decodes at most a few frames."""
    try:
        source = open_source(recipe.source_path, recipe.source_setting, recipe.channels, recipe.reading,
                             threads_per_rank())
    except OSError as error:
        raise InputError(f"{recipe.source_path}: cannot be read: {error.strerror or error}") from None
    # sizes and splits
    scale = recipe.degradation.scale
    if source.facts.periodic:
        source.facts = without_cropped(source.facts, source.height, source.width, scale, recipe.periodic,
                                       str(recipe.source_path))
    lr_size = source.height // scale, source.width // scale
    hr_size = lr_size[0] * scale, lr_size[1] * scale
    if min(lr_size) < 8:
        raise InputError(f"{recipe.source_path}: is {source.width}x{source.height}; "
                         f"at least {8 * scale}x{8 * scale} pixels are needed for scale {scale}")
    try:
        splits = split_frames(source.num_frames, recipe.split)
        shards = plan_shards(splits, recipe.shards, source.facts.breaks)
    except InputError as error:
        understood = f" ({'; '.join(source.facts.lines)})" if source.num_frames == 1 and source.facts.lines else ""
        raise InputError(f"{recipe.source_path}: {error}{understood}") from None
    described = {"name": recipe.source_path.name, "sha256": _hash_files(source.files), "frames": source.num_frames,
                 "height": source.height, "width": source.width, **source.description}
    if source.facts.breaks:
        described["breaks"] = list(source.facts.breaks)
    if source.facts.periodic:
        described["periodic"] = source.facts.periodic
    source_info = from_dict(SourceInfo, described, str(recipe.source_path))
    assert as_dict(source_info) == described, "SourceInfo lacks a field"
    is_grey = source.dtype == "uint8" or "white" in source.description
    # all that decides the bytes of the shards goes into the fingerprint
    meaning = {
        "format_version": FORMAT_VERSION,
        "source": source_info,
        "channels": list(source.channels),
        "dtype": source.dtype,
        "units": source.description.get("units", "grey levels" if is_grey else "1"),
        "degradation": recipe.degradation,
        "lr_size": lr_size,
        "hr_size": hr_size,
        "splits": splits,
        "num_shards": recipe.shards,
    }
    layout = DatasetLayout(**meaning, fingerprint=fingerprint(meaning),
                           recipe=as_dict(dataclasses.replace(recipe, out=None)))
    return Plan(recipe, source, layout, shards)


def format_plan(plan: Plan) -> str:
    """Return the plan and its size as text for --dry-run."""
    rows = [f"source   {plan.recipe.source_path}: {plan.source.num_frames} frames "
            f"{plan.source.width}x{plan.source.height}, {', '.join(plan.source.channels)} {plan.source.dtype}",
            *(f"         {line}" for line in plan.source.facts.lines),
            *(f"         warning: {line}" for line in plan.warnings),
            f"folder   {plan.recipe.folder}: {files.format_bytes(plan.num_bytes)}"]
    for split, (start, stop) in plan.layout.splits.items():
        shards = [shard for shard in plan.shards if shard.split == split]
        samples = plan.num_samples(split)
        rows.append(f"{split:<8} frames {start}..{stop - 1}, {samples} sample{'s' * (samples != 1)} in "
                    f"{len(shards)} shard{'s' * (len(shards) != 1)}")
    return "\n".join(rows)


def threads_per_rank() -> int:
    """Return the cores of this process divided by the ranks that share them, so that threads do not pile up."""
    ranks_here = max([1, *(int(os.environ[name]) for name in
                           ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE") if name in os.environ)])
    return max(1, len(os.sched_getaffinity(0)) // ranks_here)


def _hash_files(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of a single file, or of the list of names and SHA-256 of several."""
    if len(paths) == 1:
        return _hash_file_or_store(paths[0])
    return fingerprint([[path.name, _hash_file_or_store(path)] for path in paths])


def _hash_file_or_store(path: Path) -> str:
    if path.is_file():
        return files.sha256(path)
    parts = sorted(part for part in path.rglob("*") if part.is_file())  # a Zarr store
    return fingerprint([[str(part.relative_to(path)), files.sha256(part)] for part in parts])
