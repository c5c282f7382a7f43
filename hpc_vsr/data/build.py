"""Writes the data set of a recipe, all MPI ranks together; only what is missing is written."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from hpc_vsr.data.clip_plan import ClipPlan, threads_per_rank
from hpc_vsr.data.degrade import crop_to_multiple, degrade
from hpc_vsr.data.info import (
    COLLECTION_VERSION,
    ClipInfo,
    CollectionInfo,
    DatasetInfo,
    DatasetLayout,
    Normalisation,
    ShardEntry,
    for_channels,
    has_variables,
    is_grey,
)
from hpc_vsr.data.manifest import Manifest, write_manifest
from hpc_vsr.data.output import check_output, path_in, prepare_folders
from hpc_vsr.data.plan import Plan, plan_dataset
from hpc_vsr.data.recipe import Recipe
from hpc_vsr.data.shards import read_entry, write_shard
from hpc_vsr.data.splits import REACH, SPLITS, ShardPlan
from hpc_vsr.media.source import Source
from hpc_vsr.system import files
from hpc_vsr.system.config import ABSENT, as_dict
from hpc_vsr.system.lock import only_writer
from hpc_vsr.system.mpi import on_main_rank
from hpc_vsr.system.progress import Progress

PlannedShard = tuple[ClipPlan, ShardPlan]


def degraded_frames(clip: ClipPlan, start: int, stop: int, source: Source | None = None
                    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Decode frames start..stop-1 of a clip and yield (lr, hr, valid) of each.

    See `hpc_vsr.data.shards.write_shard`. `source` is the open source of the clip, if there is one.
    """
    degradation = clip.recipe.degradation
    for frame, valid in (source or clip.source).read(start, stop):
        hr = crop_to_multiple(frame, degradation.scale)
        if valid is not None:
            valid = crop_to_multiple(valid, degradation.scale)
        yield degrade(hr, degradation, clip.facts.periodic), hr, valid


def write_shards(clip: ClipPlan, pending: Sequence[ShardPlan], progress: Progress, check: Callable[[], None]
                 ) -> list[ShardEntry]:
    """Write shards of a clip in one pass over its source; frames that two neighbours share are decoded once.

    `check` is called before each shard and raises if another process has taken over the folder.
    """
    entries, source = [], clip.source
    for run in _contiguous_runs(pending):
        stream = enumerate(degraded_frames(clip, run[0].start, run[-1].stop, source), run[0].start)
        recent = collections.deque(maxlen=2 * REACH)
        for shard in run:
            check()
            frames = _frames_of(shard, recent, stream, progress)
            entries.append(write_shard(clip.folder / shard.name, shard, frames, clip.attributes,
                                       has_variables(clip.layout)))
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


def share(items: Sequence[PlannedShard], rank: int, size: int) -> list[PlannedShard]:
    """Return the contiguous part of the shards that a rank writes, balanced by frames; it may begin within a clip."""
    total = sum(shard.num_frames for _, shard in items)
    done, mine = 0, []
    for clip, shard in items:
        if min(size - 1, (done + shard.num_frames // 2) * size // total) == rank:
            mine.append((clip, shard))
        done += shard.num_frames
    return mine


def preprocess(recipe: Recipe, comm: Any) -> Manifest:
    """Write the data set of a recipe, all ranks together; every rank returns its manifest.

    Call it inside `abort_together`.
    """
    plan = plan_dataset(recipe, comm)
    recorded = on_main_rank(comm, lambda: check_output(plan))
    with only_writer(recipe.folder) if comm.rank == 0 else contextlib.nullcontext() as lock:
        check = lock.check if lock is not None else lambda: None
        on_main_rank(comm, lambda: prepare_folders(plan))
        cv2.setNumThreads(threads_per_rank())
        # each rank checks its share of the shards that are there
        found = [(path_in(plan, clip, shard), read_entry(clip.folder / shard.name, shard, clip.attributes,
                                                         recorded.get(path_in(plan, clip, shard))))
                 for clip, shard in share(plan.shards, comm.rank, comm.size)]
        entries = {name: entry for part in comm.allgather(found) for name, entry in part if entry is not None}
        # each rank writes its share of the missing ones
        pending = [(clip, shard) for clip, shard in plan.shards if path_in(plan, clip, shard) not in entries]
        mine = share(pending, comm.rank, comm.size) if pending else []
        if comm.rank == 0:
            _print_plan(plan, len(entries), comm.size)
        written = []
        with Progress(_frames_to_decode(mine), _label(comm), "frame", shown=comm.rank == 0) as progress:
            for clip, shards in _by_clip(mine):
                written += [(path_in(plan, clip, entry), entry)
                            for entry in write_shards(clip, shards, progress, check)]
        # the main rank records all shards in dataset.json, which makes the data set complete
        for part in comm.allgather(written):
            entries.update(part)
        manifest = Manifest(recipe.folder, _complete(plan, entries))
        check()
        if comm.rank == 0:
            write_manifest(manifest)
    return manifest


def _by_clip(shards: Sequence[PlannedShard]) -> list[tuple[ClipPlan, list[ShardPlan]]]:
    """Return the shards of each clip; those of a clip follow each other."""
    groups: list[tuple[ClipPlan, list[ShardPlan]]] = []
    for clip, shard in shards:
        if not groups or groups[-1][0] is not clip:
            groups.append((clip, []))
        groups[-1][1].append(shard)
    return groups


def _complete(plan: Plan, entries: dict[str, ShardEntry]) -> DatasetInfo | CollectionInfo:
    """Return dataset.json: the plan with the shards, and with the value range and normalisation.

    These follow only from the shards of the training split, in a collection from those of all clips together.
    """
    shards = [[entries[path_in(plan, clip, shard)] for shard in clip.shards] for clip in plan.clips]
    train = [entry for found in shards for entry in found if entry.split == "train"]
    layout = plan.clips[0].layout
    values = dict(zip(("value_range", "normalisation"), _range_of(train, layout), strict=True))
    if not plan.is_collection:
        return DatasetInfo(**vars(layout), **values, shards=shards[0])
    clips = [ClipInfo(clip.name, **{name: getattr(clip.layout, name) for name in
                                    ("source", "lr_size", "hr_size", "splits", "num_shards", "fingerprint")},
                      shards=found) for clip, found in zip(plan.clips, shards, strict=True)]
    shared = {name: getattr(layout, name) for name in ("channels", "dtype", "units", "degradation")}
    return CollectionInfo(format_version=COLLECTION_VERSION, **shared, fingerprint=plan.fingerprint,
                          recipe=as_dict(dataclasses.replace(plan.recipe, out=None)), **values, clips=clips)


def _range_of(train: Sequence[ShardEntry], layout: DatasetLayout) -> tuple[Any, Normalisation]:
    """Return the value range and the normalisation that follow from training shards; each variable has its own."""
    count = len(layout.channels)
    lows, highs = ([choose(numbers) for numbers in zip(*(for_channels(getattr(entry, name), count) for entry in train),
                                                       strict=True)]
                   for choose, name in ((min, "hr_min"), (max, "hr_max")))
    extents = [high - low if high > low else 1.0 for low, high in zip(lows, highs, strict=True)]
    if has_variables(layout):
        return list(zip(lows, highs, strict=True)), Normalisation(lows, extents)
    return (lows[0], highs[0]), Normalisation(0.0, 255.0) if is_grey(layout) else Normalisation(lows[0], extents[0])


def _frames_to_decode(shards: Sequence[PlannedShard]) -> int:
    covered = {(clip.name, index) for clip, shard in shards for index in range(shard.start, shard.stop)}
    return len(covered)


def _label(comm: Any) -> str:
    return "preprocessing" if comm.size == 1 else f"preprocessing (rank 0 of {comm.size})"


def _print_plan(plan: Plan, num_finished: int, num_ranks: int) -> None:
    finished = f", {num_finished} finished before" if num_finished else ""
    print(f"{plan.recipe.folder}: {_describe(plan)}, {len(plan.shards)} shards{finished}, "
          f"{num_ranks} rank{'s' if num_ranks > 1 else ''}", file=sys.stderr, flush=True)
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr, flush=True)


def _describe(plan: Plan) -> str:
    """Return the frames of a data set, where they are from and their sizes."""
    layouts = [clip.layout for clip in plan.clips]
    frames = sum(layout.source.frames for layout in layouts)
    sizes = collections.Counter((layout.hr_size, layout.lr_size) for layout in layouts)
    (height, width), (lr_height, lr_width) = sizes.most_common(1)[0][0]
    size = f"{width}x{height} HR, {lr_width}x{lr_height} LR"
    if not plan.is_collection:
        source = layouts[0].source
        names = "" if source.first is ABSENT else f" ({source.first} to {source.last})"
        return f"{frames} frames of {plan.clips[0].seen.path}{names}, {size}"
    others = f" in most, {len(sizes)} sizes in all" if len(sizes) > 1 else ""
    names = f" ({plan.clips[0].name} to {plan.clips[-1].name})" if len(layouts) > 1 else ""
    return f"{frames} frames of {files.count_of(len(layouts), 'clip')}{names}, {size}{others}"


def format_dataset(manifest: Manifest) -> str:
    """Return a line such as 'data/clip: complete, 236 train, 28 val samples, 31 MB'."""
    size = sum(entry.bytes for _, entry in manifest.all_shards())
    counts = ", ".join(f"{manifest.num_samples(split)} {split}" for split in SPLITS)
    clips = f"{files.count_of(len(manifest.clips), 'clip')}, " if manifest.is_collection else ""
    return f"{manifest.folder}: complete, {clips}{counts} samples, {files.format_bytes(size)}"
