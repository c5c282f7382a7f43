"""Writes the data set of a recipe, all MPI ranks together; only what is missing is written."""

from __future__ import annotations

import collections
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hpc_vsr.data.degrade import crop_to_multiple, degrade
from hpc_vsr.data.info import (
    DatasetInfo,
    DatasetLayout,
    Normalisation,
    ShardEntry,
    for_channels,
    has_variables,
    is_grey,
)
from hpc_vsr.data.manifest import NAME, Manifest, write_manifest
from hpc_vsr.data.recipe import Plan, Recipe, plan_dataset, threads_per_rank
from hpc_vsr.data.shards import list_shard_files, read_attribute, read_entry, write_shard
from hpc_vsr.data.splits import REACH, ShardPlan
from hpc_vsr.system import files
from hpc_vsr.system.config import ABSENT, from_dict
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.lock import only_writer
from hpc_vsr.system.mpi import on_main_rank
from hpc_vsr.system.progress import Progress


def check_output(plan: Plan) -> dict[str, str]:
    """Check that the output folder can take this data set, and create it.

    Returns
    -------
    dict
        {name: SHA-256} of the shards, if the data set is complete.

    Raises
    ------
    InputError
        If the folder holds another data set, cannot be written or has too little space.
    """
    folder = plan.recipe.folder
    wanted = plan.layout.fingerprint
    recorded: dict[str, str] = {}
    # a folder with a dataset.json must be of this data set
    content = _read_recorded(folder)
    if content is not None:
        found = content.get("fingerprint")
        if found != wanted:
            raise InputError(f"{folder}: holds another data set (fingerprint {found}, this one is {wanted}); "
                             "choose another --out or delete that folder")
        with contextlib.suppress(InputError):
            recorded = {entry.name: entry.sha256 for entry in from_dict(DatasetInfo, content, "").shards}
    elif folder.is_dir():
        # without one, the folder may hold only shards of this data set
        ours, shards = {plan.name for plan in plan.shards}, {path.name for path in list_shard_files(folder)}
        foreign = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        foreign = sorted(set(foreign) - shards - ({NAME} if shards else set()))
        if foreign:
            raise InputError(f"{folder}: holds other files ({foreign[0]}); a data set needs its own folder, "
                             "choose another --out")
        for path in list_shard_files(folder):
            if path.name.startswith("."):
                continue  # left by a killed process; it is written again or removed
            if path.name not in ours or read_attribute(path, "dataset_fingerprint") not in (wanted, None):
                raise InputError(f"{folder}: holds part of another data set ({path.name}); "
                                 "choose another --out or delete that folder")
    # the disk must have room for what is missing; a folder made for nothing is removed
    finished = sum(path.stat().st_size for path in list_shard_files(folder))
    made = not folder.exists()
    files.create_folder(folder)
    try:
        files.check_free_space(folder, max(0, plan.num_bytes - finished))
    except InputError:
        if made:
            folder.rmdir()
        raise
    return recorded


def _read_recorded(folder: Path) -> dict | None:
    """Return the content of dataset.json, or None if there is none; a damaged one is made anew from its shards."""
    if not (folder / NAME).exists():
        return None
    try:
        return files.read_sealed(folder / NAME, "it is written anew, and every shard is checked")
    except InputError as error:
        print(f"warning: {error}", file=sys.stderr)
        return None


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left under temporary names."""
    for path in list_shard_files(folder):
        if path.name.startswith("."):
            path.unlink()


def degraded_frames(plan: Plan, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Decode frames start..stop-1 and yield (lr, hr, valid) of each; see `hpc_vsr.data.shards.write_shard`."""
    degradation = plan.recipe.degradation
    for frame, valid in plan.source.read(start, stop):
        hr = crop_to_multiple(frame, degradation.scale)
        if valid is not None:
            valid = crop_to_multiple(valid, degradation.scale)
        yield degrade(hr, degradation, plan.source.facts.periodic), hr, valid


def write_shards(plan: Plan, pending: Sequence[ShardPlan], progress: Progress, check: Callable[[], None]
                 ) -> list[ShardEntry]:
    """Write shards in one pass over the source; frames that two neighbours share are decoded once.

    `check` is called before each shard and raises if another process has taken over the folder.
    """
    entries = []
    for run in _contiguous_runs(pending):
        stream = enumerate(degraded_frames(plan, run[0].start, run[-1].stop), run[0].start)
        recent = collections.deque(maxlen=2 * REACH)
        for shard in run:
            check()
            frames = _frames_of(shard, recent, stream, progress)
            entries.append(write_shard(plan.recipe.folder / shard.name, shard, frames, plan.attributes,
                                       has_variables(plan.layout)))
    return entries


def _contiguous_runs(shards: Sequence[ShardPlan]) -> list[list[ShardPlan]]:
    """Group shards whose frames follow each other, so that each group is decoded in one pass."""
    runs: list[list[ShardPlan]] = []
    for shard in shards:
        if runs and shard.start <= runs[-1][-1].stop:
            runs[-1].append(shard)
        else:
            runs.append([shard])
    return runs


def _frames_of(shard: ShardPlan, recent: collections.deque, stream: Iterator, progress: Progress) -> Iterator:
    """Yield the frames of a shard: first those that it shares with the previous one, then new ones."""
    yield from [triple for index, triple in recent if index >= shard.start]
    for index, triple in stream:
        recent.append((index, triple))
        progress.advance()
        yield triple
        if index == shard.stop - 1:
            return


def share(items: Sequence[ShardPlan], rank: int, size: int) -> list[ShardPlan]:
    """Return the contiguous part of the shards that a rank writes, balanced by frames."""
    total = sum(item.num_frames for item in items)
    done, mine = 0, []
    for item in items:
        if min(size - 1, (done + item.num_frames // 2) * size // total) == rank:
            mine.append(item)
        done += item.num_frames
    return mine


def preprocess(recipe: Recipe, comm: Any) -> Manifest:
    """Write the data set of a recipe, all ranks together; every rank returns its manifest.

    Call it inside `abort_together`.
    """
    plan = on_main_rank(comm, lambda: plan_dataset(recipe))
    recorded = on_main_rank(comm, lambda: check_output(plan))
    with only_writer(recipe.folder) if comm.rank == 0 else contextlib.nullcontext() as lock:
        check = lock.check if lock is not None else lambda: None
        on_main_rank(comm, lambda: _remove_leftovers(recipe.folder))
        cv2.setNumThreads(threads_per_rank())
        # each rank checks its share of the shards that are there
        found = [(shard.name, read_entry(recipe.folder / shard.name, shard, plan.attributes, recorded.get(shard.name)))
                 for shard in share(plan.shards, comm.rank, comm.size)]
        entries = {name: entry for part in comm.allgather(found) for name, entry in part if entry is not None}
        # each rank writes its share of the missing ones
        pending = [shard for shard in plan.shards if shard.name not in entries]
        mine = share(pending, comm.rank, comm.size) if pending else []
        if comm.rank == 0:
            _print_plan(plan, len(entries), comm.size)
        with Progress(_frames_to_decode(mine), _label(comm), "frame", shown=comm.rank == 0) as progress:
            written = write_shards(plan, mine, progress, check)
        # the main rank records all shards in dataset.json, which makes the data set complete
        for part in comm.allgather(written):
            entries.update({entry.name: entry for entry in part})
        ordered = [entries[shard.name] for shard in plan.shards]
        manifest = Manifest(recipe.folder, _complete(plan.layout, ordered))
        check()
        if comm.rank == 0:
            write_manifest(manifest)
    return manifest


def _complete(layout: DatasetLayout, shards: list[ShardEntry]) -> DatasetInfo:
    """Add the shards, and the value range and normalisation, which follow only from those of the training split."""
    train, count = [entry for entry in shards if entry.split == "train"], len(layout.channels)
    several = has_variables(layout)
    lows, highs = ([choose(numbers) for numbers in zip(*(for_channels(getattr(entry, name), count) for entry in train),
                                                       strict=True)]
                   for choose, name in ((min, "hr_min"), (max, "hr_max")))
    extents = [high - low if high > low else 1.0 for low, high in zip(lows, highs, strict=True)]
    if several:  # each variable has its own range
        ranges, normalisation = list(zip(lows, highs, strict=True)), Normalisation(lows, extents)
    else:
        ranges = (lows[0], highs[0])
        normalisation = Normalisation(0.0, 255.0) if is_grey(layout) else Normalisation(lows[0], extents[0])
    return DatasetInfo(**vars(layout), value_range=ranges, normalisation=normalisation, shards=shards)


def _frames_to_decode(shards: Sequence[ShardPlan]) -> int:
    covered = {index for shard in shards for index in range(shard.start, shard.stop)}
    return len(covered)


def _label(comm: Any) -> str:
    return "preprocessing" if comm.size == 1 else f"preprocessing (rank 0 of {comm.size})"


def _print_plan(plan: Plan, num_finished: int, num_ranks: int) -> None:
    layout = plan.layout
    (height, width), (lr_height, lr_width) = layout.hr_size, layout.lr_size
    finished = f", {num_finished} finished before" if num_finished else ""
    names = "" if layout.source.first is ABSENT else f" ({layout.source.first} to {layout.source.last})"
    print(f"{plan.recipe.folder}: {layout.source.frames} frames of {plan.recipe.source_path}{names}, "
          f"{width}x{height} HR, {lr_width}x{lr_height} LR, "
          f"{len(plan.shards)} shards{finished}, {num_ranks} rank{'s' if num_ranks > 1 else ''}",
          file=sys.stderr, flush=True)
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr, flush=True)


def format_dataset(manifest: Manifest) -> str:
    """Return a line such as 'data/clip: complete, 236 train, 28 val samples, 31 MB'."""
    size = sum(entry.bytes for entry in manifest.info.shards)
    counts = ", ".join(f"{manifest.num_samples(split)} {split}" for split in manifest.info.splits)
    return f"{manifest.folder}: complete, {counts} samples, {files.format_bytes(size)}"
