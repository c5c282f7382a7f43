"""Finds the clips that a recipe names: several paths, a pattern such as "runs/*.mp4", or a folder of folders."""

from __future__ import annotations

import collections
import contextlib
import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_vsr.media.order import natural_order
from hpc_vsr.media.source import Option
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import looked_in

IMAGES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
NOT_IN_A_NAME = "*?[]"


@dataclass(frozen=True)
class ClipFile:
    """A clip of a collection: the name of its folder in the data set, and the path of its source."""

    name: str
    path: Path


def is_pattern(path: Path) -> bool:
    """Return whether a path stands for several, as "runs/*.mp4" does; a file of that very name is no pattern."""
    return glob.has_magic(str(path)) and not path.exists()


def is_collection(paths: Sequence[Path], option: Option) -> bool:
    """Return whether the paths of a recipe stand for a collection of clips, even if they find only one.

    A pattern of fields does not: the files that it finds are one field, and follow each other in time.
    """
    if len(paths) > 1:
        return True
    return option != "field" and is_pattern(paths[0]) or option == "frames" and bool(_folders_of_images(paths[0]))


def list_clips(paths: Sequence[Path], option: Option) -> list[ClipFile]:
    """Return the clips that the paths stand for, each once, in the order of the numbers in their paths.

    A clip is named after its file or folder. Those of one name also have the name of the folder above:
    "runs/1/video.mp4" and "runs/2/video.mp4" are 1-video and 2-video.

    Raises
    ------
    InputError
        If a pattern finds nothing, or two clips have one name.
    """
    found: dict[Path, Path] = {}
    for given in paths:
        for path in _expand(given, option):
            found.setdefault(path.absolute().resolve(), path)
    # folders count for the order too: a path is sorted as one name
    as_names = {Path(str(path).replace("/", "\t")): path for path in found.values()}
    ordered = [as_names[name] for name in natural_order(as_names)]
    uses = collections.Counter(_name(path) for path in ordered)
    names: dict[str, Path] = {}
    for path in ordered:
        name = _name(path)
        if uses[name] > 1:
            name = f"{path.absolute().parent.name}-{name}"
        if (other := names.setdefault(name, path)) is not path:
            raise InputError(f"{path}: would have the name {name!r} in the data set, as {other} has; rename one of "
                             "them")
    return [ClipFile(name, path) for name, path in names.items()]


def folders_without_images(paths: Sequence[Path], option: Option) -> list[Path]:
    """Return the folders that stand between folders of images, but have no images themselves."""
    around = [path for path in paths if option == "frames" and _folders_of_images(path)]
    return sorted(inside for path in around for inside in path.iterdir()
                  if inside.is_dir() and not inside.name.startswith(".") and not _has_images(inside))


def folders_of_images(folder: Path) -> list[Path]:
    """Return the folders in a folder that have images, in the order of their names; those that may be looked into."""
    found = []
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(PermissionError):
            if path.is_dir() and not path.name.startswith(".") and _has_images(path):
                found.append(path)
    return found


def _name(path: Path) -> str:
    stem = path.name if path.is_dir() and path.suffix.lower() != ".zarr" else path.stem
    return "".join(letter for letter in stem if letter not in NOT_IN_A_NAME).strip(" ._-") or "clip"


def _expand(path: Path, option: Option) -> list[Path]:
    """Return the sources that one path of a recipe stands for."""
    if option != "field" and is_pattern(path):
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        if option == "video":
            found = [one for one in found if not one.is_dir()]
        if not found:
            raise InputError(f"{path}: nothing matches this pattern{looked_in(path)}")
        return found
    inside = _folders_of_images(path) if option == "frames" else []
    return inside or [path]


def _folders_of_images(folder: Path) -> list[Path]:
    """Return the folders of images in a folder that has no images itself."""
    if not folder.is_dir() or _has_images(folder):
        return []
    return folders_of_images(folder)


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGES and not path.name.startswith(".") for path in folder.iterdir())
