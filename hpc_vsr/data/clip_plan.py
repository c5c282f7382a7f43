"""The plan of one clip, or of a data set of one source: what its file tells, its splits and its shards."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_vsr.data.info import FORMAT_VERSION, DatasetLayout, SourceInfo
from hpc_vsr.data.recipe import Recipe
from hpc_vsr.data.splits import ShardPlan, plan_shards
from hpc_vsr.media.clip_files import ClipFile
from hpc_vsr.media.reading import Facts, without_cropped
from hpc_vsr.media.source import Source, open_source
from hpc_vsr.system import files
from hpc_vsr.system.config import as_dict, fingerprint, from_dict
from hpc_vsr.system.errors import InputError

LEAST_SIDE = 8  # LR pixels


@dataclass(frozen=True)
class SeenClip:
    """What the file of a clip tells, before it is split.

    Attributes
    ----------
    name : str
        Folder of its shards in the data set; "" for a data set of one source.
    path : Path
    num_frames, height, width, channels, dtype, description, facts
        As in `hpc_vsr.media.source.Source`.
    sha256 : str
    source : Source, optional
        Only that of a data set of one source is kept open.
    """

    name: str
    path: Path
    num_frames: int
    height: int
    width: int
    channels: tuple[str, ...]
    dtype: str
    description: dict[str, Any]
    facts: Facts
    sha256: str
    source: Source | None = None


@dataclass(frozen=True)
class ClipPlan:
    """Plan of a clip; the same on every rank.

    Attributes
    ----------
    recipe : Recipe
    seen : SeenClip
    layout : DatasetLayout
        dataset.json of the clip as a data set of its own, without the entries of the shards and what follows from their
        values.
    shards : list of ShardPlan
    """

    recipe: Recipe
    seen: SeenClip
    layout: DatasetLayout
    shards: list[ShardPlan]

    @property
    def name(self) -> str:
        return self.seen.name

    @property
    def facts(self) -> Facts:
        return self.seen.facts

    @property
    def folder(self) -> Path:
        """Folder of its shards."""
        return self.recipe.folder / self.name

    @property
    def source(self) -> Source:
        """The open source; each use opens that of a clip of a collection."""
        return self.seen.source or _open(self.recipe, self.seen.path)

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

    def num_samples(self, split: str) -> int:
        return sum(shard.num_samples for shard in self.shards if shard.split == split)


def look_at_clip(recipe: Recipe, clip: ClipFile, keep_open: bool = False) -> SeenClip:
    """Open a source and check it; at most a few frames are decoded. `InputError` names it if it cannot be read."""
    path, scale = clip.path, recipe.degradation.scale
    try:
        source = _open(recipe, path)
        if source.facts.periodic:
            source.facts = without_cropped(source.facts, source.height, source.width, scale, recipe.periodic, str(path))
        if min(source.height, source.width) // scale < LEAST_SIDE:
            raise InputError(f"{path}: is {source.width}x{source.height}; at least {LEAST_SIDE * scale}x"
                             f"{LEAST_SIDE * scale} pixels are needed for scale {scale}")
        checksum = _hash_files(source.files)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    return SeenClip(clip.name, path, source.num_frames, source.height, source.width, tuple(source.channels),
                    source.dtype, source.description, source.facts, checksum, source if keep_open else None)


def lay_out_clip(recipe: Recipe, seen: SeenClip, splits: dict[str, tuple[int, int]], num_shards: int) -> ClipPlan:
    """Cut the splits of a clip, {split: (start, stop)}, into shards; see `plan_shards` for its errors."""
    scale = recipe.degradation.scale
    shards = plan_shards(splits, num_shards, seen.facts.breaks)
    described = {"name": seen.path.name, "sha256": seen.sha256, "frames": seen.num_frames,
                 "height": seen.height, "width": seen.width, **seen.description}
    if seen.facts.breaks:
        described["breaks"] = list(seen.facts.breaks)
    if seen.facts.periodic:
        described["periodic"] = seen.facts.periodic
    source_info = from_dict(SourceInfo, described, str(seen.path))
    assert as_dict(source_info) == described, "SourceInfo lacks a field"
    lr_size = seen.height // scale, seen.width // scale
    # all that decides the bytes of the shards goes into the fingerprint
    meaning = {
        "format_version": FORMAT_VERSION,
        "source": source_info,
        "channels": list(seen.channels),
        "dtype": seen.dtype,
        "units": units_of(seen),
        "degradation": recipe.degradation,
        "lr_size": lr_size,
        "hr_size": (lr_size[0] * scale, lr_size[1] * scale),
        "splits": splits,
        "num_shards": num_shards,
    }
    # the recipe of a collection is recorded once, and not for each of its clips
    given = {} if seen.name else as_dict(dataclasses.replace(recipe, out=None))
    layout = DatasetLayout(**meaning, fingerprint=fingerprint(meaning), recipe=given)
    return ClipPlan(recipe, seen, layout, shards)


def units_of(seen: SeenClip) -> str | list[str]:
    is_grey = seen.dtype == "uint8" or "white" in seen.description
    return seen.description.get("units", "grey levels" if is_grey else "1")


def threads_per_rank() -> int:
    """Return the cores of this process divided by the ranks that share them, so that threads do not pile up."""
    ranks_here = max([1, *(int(os.environ[name]) for name in
                           ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE") if name in os.environ)])
    return max(1, len(os.sched_getaffinity(0)) // ranks_here)


def _open(recipe: Recipe, path: Path) -> Source:
    return open_source(path, recipe.source_setting, recipe.channels, recipe.reading, threads_per_rank())


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
