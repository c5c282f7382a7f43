"""Turn the frames of a video, a folder of images or a field into a data set of sharded 5-frame LR/HR samples.

Runs alone, under `mpiexec -n N` and under `srun --mpi=pmi2|pmix`; the bytes written are the same for any number of
ranks. The same command again checks what is finished and writes only what is missing.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hpc_vsr import files
from hpc_vsr.config import Parser, as_dict, fingerprint
from hpc_vsr.degrade import Degradation, crop_to_multiple, degrade
from hpc_vsr.errors import BAD_INPUT, InputError, exit_status
from hpc_vsr.manifest import NAME, Manifest, write_manifest
from hpc_vsr.mpi import abort_together, connect, on_main_rank
from hpc_vsr.progress import Progress
from hpc_vsr.shards import FORMAT_VERSION, list_shard_files, read_attribute, read_entry, write_shard
from hpc_vsr.sources import Source
from hpc_vsr.sources.colour import Channels
from hpc_vsr.splits import REACH, ShardPlan, SplitFractions, plan_shards, split_frames


@dataclass(frozen=True)
class Recipe:
    """Which data: the source, what is learned from it, how it is degraded, split and sharded.

    Attributes
    ----------
    video : Path
        Video file of any kind that FFmpeg reads.
    frames : Path
        Folder of PNG, TIFF or JPEG images, taken in natural order.
    field : Path
        NetCDF, HDF5 or Zarr file; needs --variable.
    variable : str
        Variable of the field, with dimensions (time, y, x).
    out : Path
        Folder of the data set; data/NAME of the source if not given.
    shards : int
        Number of files, over all splits.
    channels : str
        y: luma of BT.601 in full range. rgb: three channels. A field has one channel.
    degradation : Degradation
    split : SplitFractions
    """

    video: Path | None = None
    frames: Path | None = None
    field: Path | None = None
    variable: str | None = None
    out: Path | None = None
    shards: int = 8
    channels: Channels = "y"
    degradation: Degradation = dataclasses.field(default_factory=Degradation)
    split: SplitFractions = dataclasses.field(default_factory=SplitFractions)

    def __post_init__(self):
        given = [f"--{name}" for name in ("video", "frames", "field") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError("one source is wanted, --video, --frames or --field; "
                             f"found {' and '.join(given) or 'none'}")
        if (self.field is None) != (self.variable is None):
            raise InputError("--field and --variable go together: the file and the name of the variable in it")

    @property
    def source_path(self) -> Path:
        return self.video or self.frames or self.field

    @property
    def folder(self) -> Path:
        return self.out or Path("data") / self.source_path.stem


@dataclass(frozen=True)
class Plan:
    """What is to be written, known before the first frame is decoded; the same on every rank.

    Attributes
    ----------
    source : Source
    content : dict
        dataset.json but for the shard entries and what follows from the values.
    shards : list of ShardPlan
    """

    recipe: Recipe
    source: Source
    content: dict
    shards: list[ShardPlan]

    @property
    def attributes(self) -> dict[str, Any]:
        """What each shard says of itself."""
        content = self.content
        return {"dataset_fingerprint": content["fingerprint"], "source": content["source"]["name"],
                "source_sha256": content["source"]["sha256"], "channels": ",".join(content["channels"]),
                "units": content["units"], "degradation": content["degradation"]["kind"],
                "sigma": content["degradation"]["sigma"], "scale": content["degradation"]["scale"]}

    @property
    def num_bytes(self) -> int:
        sizes = [self.content["lr_size"], self.content["hr_size"]]
        pixels = sum(height * width for height, width in sizes) * len(self.content["channels"])
        return sum(plan.num_frames for plan in self.shards) * pixels * np.dtype(self.content["dtype"]).itemsize


def open_source(recipe: Recipe) -> Source:
    """Open the source that a recipe names, after the checks that need no decoder."""
    if recipe.video is not None:
        from hpc_vsr.sources.video import open_video

        files.check_input_file(recipe.video, "a video file")
        return open_video(recipe.video, recipe.channels, num_threads=_threads_per_rank())
    if recipe.frames is not None:
        from hpc_vsr.sources.images import open_images

        return open_images(recipe.frames, recipe.channels)
    from hpc_vsr.sources.field import open_field

    if not recipe.field.is_dir():  # a Zarr store is a folder
        files.check_input_file(recipe.field, "a NetCDF, HDF5 or Zarr file")
    return open_field(recipe.field, recipe.variable)


def plan_dataset(recipe: Recipe) -> Plan:
    """Check the source and lay out the data set; nothing is written and at most a few frames are decoded."""
    source = open_source(recipe)
    scale = recipe.degradation.scale
    lr_size = [source.height // scale, source.width // scale]
    hr_size = [lr_size[0] * scale, lr_size[1] * scale]
    if min(lr_size) < 8:
        raise InputError(f"{recipe.source_path}: is {source.width}x{source.height}; "
                         f"at least {8 * scale}x{8 * scale} pixels are needed for scale {scale}")
    try:
        splits = split_frames(source.num_frames, recipe.split)
    except InputError as error:
        raise InputError(f"{recipe.source_path}: {error}") from None
    shards = plan_shards(splits, recipe.shards)
    meaning = {
        "format_version": FORMAT_VERSION,
        "source": {"name": recipe.source_path.name, "sha256": _hash_files(source.files),
                   "frames": source.num_frames, "height": source.height, "width": source.width,
                   **source.description},
        "channels": list(source.channels),
        "dtype": source.dtype,
        "units": source.description.get("units", "grey levels" if source.dtype == "uint8" else "1"),
        "degradation": as_dict(recipe.degradation),
        "lr_size": lr_size,
        "hr_size": hr_size,
        "splits": {split: list(block) for split, block in splits.items()},
        "num_shards": recipe.shards,
    }
    content = {**meaning, "fingerprint": fingerprint(meaning), "recipe": as_dict(dataclasses.replace(recipe, out=None))}
    return Plan(recipe, source, content, shards)


def check_output(plan: Plan) -> None:
    """Raise `InputError` if the output folder holds another data set, cannot be written or has too little room."""
    folder = plan.recipe.folder
    wanted = plan.content["fingerprint"]
    if (folder / NAME).exists():
        found = files.read_json(folder / NAME, "delete it and run this command again").get("fingerprint")
        if found != wanted:
            raise InputError(f"{folder}: holds another data set (fingerprint {found}, this one is {wanted}); "
                             "choose another --out or delete that folder")
    elif folder.is_dir():
        ours = {plan.name for plan in plan.shards}
        for path in list_shard_files(folder):
            if path.name.startswith("."):
                continue  # what a killed process left: it is written again or removed
            if path.name not in ours or read_attribute(path, "dataset_fingerprint") not in (wanted, None):
                raise InputError(f"{folder}: holds part of another data set ({path.name}); "
                                 "choose another --out or delete that folder")
    finished = sum(path.stat().st_size for path in list_shard_files(folder))
    made = not folder.exists()
    files.create_folder(folder)
    try:
        files.check_free_space(folder, max(0, plan.num_bytes - finished))
    except InputError:
        if made:
            folder.rmdir()
        raise
    for path in list_shard_files(folder):
        if path.name.startswith("."):
            path.unlink()


def degraded_frames(plan: Plan, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Decode frames start..stop-1 and yield (lr, hr, valid) of each; see `hpc_vsr.shards.write_shard`."""
    degradation = plan.recipe.degradation
    for frame, valid in plan.source.read(start, stop):
        hr = crop_to_multiple(frame, degradation.scale)
        if valid is not None:
            valid = crop_to_multiple(valid[None], degradation.scale)[0]
        yield degrade(hr, degradation), hr, valid


def write_shards(plan: Plan, pending: Sequence[ShardPlan], progress: Progress) -> list[dict]:
    """Write shards in one pass over the source; the frames that two neighbours share are decoded once."""
    entries = []
    for run in _contiguous_runs(pending):
        stream = enumerate(degraded_frames(plan, run[0].start, run[-1].stop), run[0].start)
        recent = collections.deque(maxlen=2 * REACH)
        for shard in run:
            frames = _frames_of(shard, recent, stream, progress)
            entries.append(write_shard(plan.recipe.folder / shard.name, shard, frames, plan.attributes))
    return entries


def _contiguous_runs(shards: Sequence[ShardPlan]) -> list[list[ShardPlan]]:
    runs: list[list[ShardPlan]] = []
    for shard in shards:
        if runs and shard.start <= runs[-1][-1].stop:
            runs[-1].append(shard)
        else:
            runs.append([shard])
    return runs


def _frames_of(shard: ShardPlan, recent: collections.deque, stream: Iterator, progress: Progress) -> Iterator:
    yield from [triple for index, triple in recent if index >= shard.start]
    for index, triple in stream:
        recent.append((index, triple))
        progress.advance()
        yield triple
        if index == shard.stop - 1:
            return


def share(items: Sequence[ShardPlan], rank: int, size: int) -> list[ShardPlan]:
    """The contiguous part of the shards that a rank does, balanced by frames."""
    total = sum(item.num_frames for item in items)
    done, mine = 0, []
    for item in items:
        if min(size - 1, (done + item.num_frames // 2) * size // total) == rank:
            mine.append(item)
        done += item.num_frames
    return mine


def preprocess(recipe: Recipe, comm: Any) -> Manifest:
    """Write the data set of a recipe, all ranks together; every rank returns its manifest."""
    plan = on_main_rank(comm, lambda: _prepared(recipe))
    with abort_together(comm):
        cv2.setNumThreads(_threads_per_rank())
        found = [(shard.name, read_entry(recipe.folder / shard.name, shard, plan.attributes))
                 for shard in share(plan.shards, comm.rank, comm.size)]
        entries = {name: entry for part in comm.allgather(found) for name, entry in part if entry is not None}
        pending = [shard for shard in plan.shards if shard.name not in entries]
        mine = share(pending, comm.rank, comm.size) if pending else []
        if comm.rank == 0:
            _say_plan(plan, len(entries), comm.size)
        with Progress(_frames_to_decode(mine), _label(comm), "frame", shown=comm.rank == 0) as progress:
            written = write_shards(plan, mine, progress)
        for part in comm.allgather(written):
            entries.update({entry["name"]: entry for entry in part})
        ordered = [entries[shard.name] for shard in plan.shards]
        manifest = Manifest(recipe.folder, {**plan.content, **_values(plan, ordered), "shards": ordered})
        if comm.rank == 0:
            write_manifest(manifest)
    return manifest


def _prepared(recipe: Recipe) -> Plan:
    plan = plan_dataset(recipe)
    check_output(plan)
    return plan


def _values(plan: Plan, entries: list[dict]) -> dict:
    """Value range and normalisation from the training split alone."""
    train = [entry for entry in entries if entry["split"] == "train"]
    low, high = min(entry["hr_min"] for entry in train), max(entry["hr_max"] for entry in train)
    if plan.content["dtype"] == "uint8":
        normalisation = {"offset": 0.0, "extent": 255.0}
    else:
        normalisation = {"offset": low, "extent": high - low if high > low else 1.0}
    return {"value_range": [low, high], "normalisation": normalisation}


def _frames_to_decode(shards: Sequence[ShardPlan]) -> int:
    covered = {index for shard in shards for index in range(shard.start, shard.stop)}
    return len(covered)


def _label(comm: Any) -> str:
    return "preprocessing" if comm.size == 1 else f"preprocessing (rank 0 of {comm.size})"


def _threads_per_rank() -> int:
    """Cores of this process over the ranks that share them, so that ranks and threads do not pile up."""
    ranks_here = max([1, *(int(os.environ[name]) for name in
                           ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE") if name in os.environ)])
    return max(1, len(os.sched_getaffinity(0)) // ranks_here)


def _hash_files(paths: Sequence[Path]) -> str:
    """SHA-256 of the one file, or of the list of names and SHA-256 of several."""
    if len(paths) == 1 and paths[0].is_file():
        return files.sha256(paths[0])
    if len(paths) == 1:  # a Zarr store
        return _hash_files(sorted(path for path in paths[0].rglob("*") if path.is_file()))
    return fingerprint([[path.name, files.sha256(path)] for path in paths])


def _say_plan(plan: Plan, num_finished: int, num_ranks: int) -> None:
    content = plan.content
    finished = f", {num_finished} finished before" if num_finished else ""
    print(f"{plan.recipe.folder}: {content['source']['frames']} frames of {plan.recipe.source_path}, "
          f"{content['hr_size'][1]}x{content['hr_size'][0]} HR, {content['lr_size'][1]}x{content['lr_size'][0]} LR, "
          f"{len(plan.shards)} shards{finished}, {num_ranks} rank{'s' if num_ranks > 1 else ''}",
          file=sys.stderr, flush=True)


def format_plan(plan: Plan) -> str:
    """The plan and its size as text for --dry-run."""
    rows = [f"source   {plan.recipe.source_path}: {plan.source.num_frames} frames "
            f"{plan.source.width}x{plan.source.height}, {', '.join(plan.source.channels)} {plan.source.dtype}",
            f"folder   {plan.recipe.folder}: {files.format_bytes(plan.num_bytes)}"]
    for split, (start, stop) in plan.content["splits"].items():
        shards = [shard for shard in plan.shards if shard.split == split]
        samples = sum(shard.num_samples for shard in shards)
        rows.append(f"{split:<8} frames {start}..{stop - 1}, {samples} samples in {len(shards)} shards")
    return "\n".join(rows)


def build_parser() -> Parser:
    parser = Parser("preprocess", __doc__)
    parser.add_settings(Recipe, "--recipe")
    parser.add_argument("--dry-run", action="store_true", help="print the recipe, the plan and its size; write nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    comm = connect()
    try:
        recipe, arguments = build_parser().parse(argv)
        if arguments.dry_run:
            if comm.rank == 0:
                plan = plan_dataset(recipe)
                print("\n".join(f"{key} = {value}" for key, value in as_dict(recipe).items()))
                print(format_plan(plan))
            return
        manifest = preprocess(recipe, comm)
    except InputError:  # every rank has it: one line is enough
        if comm.rank != 0:
            sys.exit(BAD_INPUT)
        raise
    if comm.rank == 0:
        size = sum(entry["bytes"] for entry in manifest.content["shards"])
        counts = ", ".join(f"{manifest.num_samples(split)} {split}" for split in manifest.content["splits"])
        print(f"{manifest.folder}: complete, {counts} samples, {files.format_bytes(size)}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
