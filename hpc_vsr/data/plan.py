"""The plan of a data set: what will be written, known before the first frame is decoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpc_vsr.data.clip_plan import ClipPlan, SeenClip, lay_out_clip, look_at_clip
from hpc_vsr.data.collection import check_alike, describe_differences, leave_out_copies, summarise_warnings
from hpc_vsr.data.info import COLLECTION_VERSION
from hpc_vsr.data.manifest import NAME
from hpc_vsr.data.recipe import Recipe
from hpc_vsr.data.split_clips import split_clips
from hpc_vsr.data.splits import SPLITS, WINDOW, ShardPlan, TooShort, count_samples, split_frames
from hpc_vsr.media.clip_files import ClipFile, folders_without_images, list_clips
from hpc_vsr.system import files
from hpc_vsr.system.config import fingerprint
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.mpi import SingleProcess, on_main_rank
from hpc_vsr.system.progress import Progress

# what hangs on the samples of a split
DEPENDS = {"train": "a network learns from", "val": "the best weights and the Wiener noise are chosen by",
           "test": "every figure is measured on"}
MOST_SHOWN = 20  # clips in the text of a plan


@dataclass(frozen=True)
class Plan:
    """Plan of a data set; the same on every rank.

    Attributes
    ----------
    recipe : Recipe
    clips : list of ClipPlan
        One for a data set of one source.
    told : list of str
        What the user should know of the clips of a collection together.
    """

    recipe: Recipe
    clips: list[ClipPlan]
    told: list[str] = dataclasses.field(default_factory=list)

    @property
    def is_collection(self) -> bool:
        return bool(self.clips[0].name)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the data set; that of a collection follows from those of its clips."""
        if not self.is_collection:
            return self.clips[0].layout.fingerprint
        return fingerprint({"format_version": COLLECTION_VERSION,
                            "clips": [[clip.name, clip.layout.fingerprint] for clip in self.clips]})

    @property
    def shards(self) -> list[tuple[ClipPlan, ShardPlan]]:
        return [(clip, shard) for clip in self.clips for shard in clip.shards]

    @property
    def num_bytes(self) -> int:
        return sum(clip.num_bytes for clip in self.clips)

    @property
    def warnings(self) -> list[str]:
        """What the user should know of the sources and of the splits."""
        lone = [split for split in SPLITS if self.num_samples(split) == 1]
        return [*summarise_warnings([clip.seen for clip in self.clips]), *self.told,
                *(f"the split {split} has a single sample, so {DEPENDS[split]} one frame; take more frames or raise "
                  f"--split.{split}" for split in lone)]

    def num_samples(self, split: str) -> int:
        return sum(clip.num_samples(split) for clip in self.clips)


def plan_dataset(recipe: Recipe, comm: Any = None) -> Plan:
    """Check the sources and lay out the data set; it writes nothing and decodes at most a few frames.

    All ranks call it together, and share the clips. `InputError` if one cannot be used.
    """
    comm = comm or SingleProcess()
    if not recipe.is_collection:
        return on_main_rank(comm, lambda: _plan_one(recipe))
    clips = on_main_rank(comm, lambda: list_clips(recipe.sources, recipe.source_setting))
    seen = _look_at_all(recipe, clips, comm)
    return on_main_rank(comm, lambda: _plan_collection(recipe, seen))


def _plan_one(recipe: Recipe) -> Plan:
    """Plan a data set of one source."""
    path = recipe.sources[0]
    if recipe.split.by == "clip":
        several = ("--field several times, for a pattern of fields is one clip" if recipe.source_setting == "field"
                   else "several, or a pattern")
        raise InputError(f"--split.by clip: {path} is one clip; give {several}")
    seen = look_at_clip(recipe, ClipFile("", path), keep_open=True)
    try:
        splits = split_frames(seen.num_frames, recipe.split)
        return Plan(recipe, [lay_out_clip(recipe, seen, splits, recipe.shards)])
    except InputError as error:
        understood = f" ({'; '.join(seen.facts.lines)})" if seen.num_frames == 1 and seen.facts.lines else ""
        raise InputError(f"{path}: {error}{understood}") from None


def _look_at_all(recipe: Recipe, clips: Sequence[ClipFile], comm: Any) -> list[SeenClip]:
    """Look at the clips, all ranks together; the first one that cannot be used is refused."""
    found: list[SeenClip | InputError] = []
    mine = clips[comm.rank :: comm.size]
    with Progress(len(mine), "looking at clips", "clip", shown=comm.rank == 0) as progress:
        for clip in mine:
            try:
                found.append(look_at_clip(recipe, clip))
            except InputError as error:
                found.append(error)
            progress.advance()
    parts = comm.allgather(found)
    ordered = [parts[index % comm.size][index // comm.size] for index in range(len(clips))]

    def refuse_bad() -> None:
        bad = [one for one in ordered if isinstance(one, InputError)]
        if bad:
            more = f" ({len(bad) - 1} more of the {len(clips)} clips cannot be used)" if len(bad) > 1 else ""
            raise InputError(f"{bad[0]}{more}")

    on_main_rank(comm, refuse_bad)
    return ordered


def _plan_collection(recipe: Recipe, seen: list[SeenClip]) -> Plan:
    """Plan a collection: leave out what is too short or there twice, split the clips, and cut each into shards."""
    taken = next((clip.path for clip in seen if clip.name == NAME), None)
    if taken is not None:
        raise InputError(f"{taken}: has the name of a file of the data set; rename it")
    there = {path.name for path in recipe.folder.iterdir()} if recipe.folder.is_dir() else set()
    seen, told = leave_out_copies(seen, there)
    told += [f"{path}: has no images, so it is left out"
             for path in folders_without_images(recipe.sources, recipe.source_setting)[:MOST_SHOWN]]
    check_alike(seen)
    by_clip = recipe.split.by == "clip"
    short: dict[str, str] = {}
    fitting = []
    for clip in seen:
        if by_clip and not count_samples({"all": (0, clip.num_frames)}, clip.facts.breaks):
            short[str(clip.path)] = f"has no {WINDOW} consecutive frames"
        else:
            fitting.append(clip)
    chosen = {}
    if by_clip:
        samples = {clip.sha256: count_samples({"all": (0, clip.num_frames)}, clip.facts.breaks) for clip in fitting}
        known = {clip.sha256: split for clip in fitting if (split := _split_before(recipe, clip)) is not None}
        chosen = split_clips(samples, recipe.split, known)
    plans = []
    for clip in fitting:
        try:
            splits = {chosen[clip.sha256]: (0, clip.num_frames)} if by_clip else split_frames(clip.num_frames,
                                                                                              recipe.split)
            # a short clip has fewer shards, because each needs a sample
            num_shards = min(recipe.shards, count_samples(splits, clip.facts.breaks))
            plans.append(lay_out_clip(recipe, clip, splits, max(num_shards, len(splits))))
        except TooShort as error:
            short[str(clip.path)] = str(error)
        except InputError as error:
            raise InputError(f"{clip.path}: {error}") from None
    told += _tell_of_short(short, len(plans), by_clip)
    return Plan(recipe, plans, [*told, *describe_differences([plan.seen for plan in plans])])


def _tell_of_short(short: dict[str, str], num_fitting: int, by_clip: bool) -> list[str]:
    """Return a line on the clips that are left out because they are too short; `InputError` if none is left."""
    if not short:
        return []
    path, reason = next(iter(short.items()))
    if not num_fitting:
        raise InputError(f"{path}: {reason}, and no other clip is long enough"
                         + ("" if by_clip else "; --split.by clip needs only "
                            f"{WINDOW} consecutive frames of a clip"))
    others = [name for name in short if name != path]
    also = f"; likewise {_some(others)}" if others else ""
    mend = "" if by_clip else f" (--split.by clip needs only {WINDOW} frames)"
    return [f"{path}: {reason}, so it is left out{mend}{also}"]


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _split_before(recipe: Recipe, clip: SeenClip) -> str | None:
    """Return the split in which a clip is already; its shards say so, also those of a killed process."""
    splits = {path.name.partition("-")[0] for path in (recipe.folder / clip.name).glob("*-of-*.h5")}
    return splits.pop() if len(splits) == 1 and splits <= set(SPLITS) else None


def format_plan(plan: Plan) -> str:
    """Return the plan and its size as text for --dry-run."""
    rows = _format_collection(plan) if plan.is_collection else _format_clip(plan.clips[0])
    rows += [*(f"         warning: {line}" for line in plan.warnings),
             f"folder   {plan.recipe.folder}: {files.format_bytes(plan.num_bytes)}"]
    for split in SPLITS:
        clips = [clip for clip in plan.clips if split in clip.layout.splits]
        shards = [shard for clip in clips for shard in clip.shards if shard.split == split]
        where = f"{len(clips)} clip{'s' * (len(clips) != 1)}"
        if not plan.is_collection:
            start, stop = clips[0].layout.splits[split]
            where = f"frames {start}..{stop - 1}"
        rows.append(f"{split:<8} {where}, {files.count_of(plan.num_samples(split), 'sample')} in "
                    f"{files.count_of(len(shards), 'shard')}")
    return "\n".join(rows)


def _format_clip(clip: ClipPlan) -> list[str]:
    seen = clip.seen
    return [f"source   {seen.path}: {seen.num_frames} frames {seen.width}x{seen.height}, "
            f"{', '.join(seen.channels)} {seen.dtype}", *(f"         {line}" for line in seen.facts.lines)]


def _format_collection(plan: Plan) -> list[str]:
    frames = sum(clip.seen.num_frames for clip in plan.clips)
    first, clips = plan.clips[0].seen, files.count_of(len(plan.clips), "clip")
    rows = [f"source   {clips}, {frames} frames, {', '.join(first.channels)} {first.dtype}"]
    for clip in plan.clips[:MOST_SHOWN]:
        seen = clip.seen
        parts = [f"{seen.num_frames} frames {seen.width}x{seen.height}",
                 " ".join(f"{split} {clip.num_samples(split)}" for split in clip.layout.splits), *seen.facts.lines]
        rows.append(f"         {seen.path}: {'; '.join(parts)}")
    if len(plan.clips) > MOST_SHOWN:
        rows.append(f"         and {len(plan.clips) - MOST_SHOWN} more, to {plan.clips[-1].seen.path}")
    return rows
