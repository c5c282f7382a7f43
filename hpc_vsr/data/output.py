"""Checks that a folder can take a data set: that it is empty, or holds a part of this very data set."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hpc_vsr.data.clip_plan import ClipPlan
from hpc_vsr.data.info import COLLECTION_VERSION, CollectionInfo, DatasetInfo
from hpc_vsr.data.manifest import NAME
from hpc_vsr.data.plan import Plan
from hpc_vsr.data.shards import list_shard_files, read_attribute
from hpc_vsr.system import files
from hpc_vsr.system.config import from_dict
from hpc_vsr.system.errors import InputError

CHOOSE = "choose another --out or delete that folder"


def path_in(plan: Plan, clip: ClipPlan, shard: Any) -> str:
    """Return the path of a shard within the folder of the data set; it names the shard among those of all clips."""
    return f"{clip.name}/{shard.name}" if plan.is_collection else shard.name


def check_output(plan: Plan) -> dict[str, str]:
    """Check that the output folder can take this data set, and create it.

    A collection may have clips that its folder does not have yet, but none less.

    Returns
    -------
    dict
        {path in the folder: SHA-256} of the shards that dataset.json records.

    Raises
    ------
    InputError
        If the folder holds another data set, cannot be written or has too little space.
    """
    folder = plan.recipe.folder
    content = _read_recorded(folder)
    if content is not None and plan.is_collection != (content.get("format_version") == COLLECTION_VERSION):
        kinds = ("a data set of one source", "a collection of clips")
        raise InputError(f"{folder}: holds {kinds[not plan.is_collection]}, and this is {kinds[plan.is_collection]}; "
                         f"{CHOOSE}")
    if plan.is_collection:
        recorded = _check_collection(plan, content)
    elif content is not None:
        recorded = _check_recorded(folder, content, plan.fingerprint)
    else:
        recorded = {}
        if folder.is_dir():
            _check_unfinished(plan.clips[0], folder)
    # the disk must have room for what is missing; a folder made for nothing is removed
    finished = sum(path.stat().st_size for clip in plan.clips for path in list_shard_files(clip.folder))
    made = not folder.exists()
    files.create_folder(folder)
    try:
        files.check_free_space(folder, max(0, plan.num_bytes - finished))
    except InputError:
        if made:
            folder.rmdir()
        raise
    return recorded


def prepare_folders(plan: Plan) -> None:
    """Create the folders of the clips, and remove what killed processes left in them under temporary names."""
    for clip in plan.clips:
        clip.folder.mkdir(exist_ok=True)
        for path in list_shard_files(clip.folder):
            if path.name.startswith("."):
                path.unlink()


def _check_collection(plan: Plan, content: dict | None) -> dict[str, str]:
    """Check the folder of a collection clip by clip; return {path in the folder: SHA-256} of the recorded shards."""
    folder, ours = plan.recipe.folder, {clip.name: clip for clip in plan.clips}
    recorded: dict[str, str] = {}
    before: dict[str, str] = {}
    with contextlib.suppress(InputError):
        if content is not None:
            info = from_dict(CollectionInfo, content, "")
            before = {clip.name: clip.fingerprint for clip in info.clips}
            recorded = {f"{clip.name}/{entry.name}": entry.sha256 for clip in info.clips for entry in clip.shards}
    for name, found in before.items():
        if name not in ours:
            raise InputError(f"{folder}: has a clip {name!r}, which is not given now, or has another name because "
                             f"another clip is called the same; give it under that name, or {CHOOSE}")
        if found != ours[name].layout.fingerprint:
            raise InputError(f"{folder}: holds another data set: the clip {name!r} has the fingerprint {found} there, "
                             f"and {ours[name].layout.fingerprint} now; {CHOOSE}")
    if not folder.is_dir():
        return recorded
    _refuse_foreign(folder, {*ours, NAME} if before or _has_folder_of(ours, folder) else ())
    for clip in plan.clips:
        if clip.name not in before and clip.folder.exists():
            _check_unfinished(clip, clip.folder)
    return recorded


def _has_folder_of(ours: Collection[str], folder: Path) -> bool:
    return any((folder / name).is_dir() for name in ours)


def _check_recorded(folder: Path, content: dict, wanted: str) -> dict[str, str]:
    """Check that dataset.json is of this data set; return {name: SHA-256} of the shards."""
    found = content.get("fingerprint")
    if found != wanted:
        raise InputError(f"{folder}: holds another data set (fingerprint {found}, this one is {wanted}); {CHOOSE}")
    with contextlib.suppress(InputError):
        return {entry.name: entry.sha256 for entry in from_dict(DatasetInfo, content, "").shards}
    return {}


def _check_unfinished(clip: ClipPlan, folder: Path) -> None:
    """Check that a folder that dataset.json does not record has only shards of this clip."""
    ours, shards = {plan.name for plan in clip.shards}, {path.name for path in list_shard_files(folder)}
    _refuse_foreign(folder, shards | ({NAME} if shards else set()))
    for path in list_shard_files(folder):
        if path.name.startswith("."):
            continue  # left by a killed process; it is written again or removed
        if path.name not in ours or read_attribute(path, "dataset_fingerprint") not in (clip.layout.fingerprint, None):
            raise InputError(f"{folder}: holds part of another data set ({path.name}); {CHOOSE}")


def _refuse_foreign(folder: Path, allowed: Collection[str]) -> None:
    foreign = sorted(path.name for path in folder.iterdir()
                     if not path.name.startswith(".") and path.name not in allowed)
    if foreign:
        raise InputError(f"{folder}: holds other files ({foreign[0]}); a data set needs its own folder, "
                         "choose another --out")


def _read_recorded(folder: Path) -> dict | None:
    """Return the content of dataset.json, or None if there is none; a damaged one is made anew from its shards."""
    if not (folder / NAME).exists():
        return None
    try:
        return files.read_sealed(folder / NAME, "it is written anew, and every shard is checked")
    except InputError as error:
        print(f"warning: {error}", file=sys.stderr)
        return None
