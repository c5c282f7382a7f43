"""Reads and writes ``dataset.json``, which describes a data set. It is written last and marks a complete folder."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.info import (
    COLLECTION_VERSION,
    FORMAT_VERSION,
    CollectionInfo,
    DatasetInfo,
    ShardEntry,
    Variable,
    has_variables,
    is_grey,
    variables_of,
)
from hpc_vsr.system.config import ABSENT, as_dict, from_dict
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import read_sealed, sha256, write_sealed

NAME = "dataset.json"


@dataclass(frozen=True)
class Manifest:
    """A complete data set.

    Attributes
    ----------
    folder : Path
    info : DatasetInfo or CollectionInfo
        All of dataset.json. The stages read the properties below; those of the source and of the size of frames are for
        one clip.
    """

    folder: Path
    info: DatasetInfo | CollectionInfo

    @property
    def name(self) -> str:
        return self.folder.absolute().name

    @functools.cached_property
    def clips(self) -> list[Manifest]:
        """The clips of a collection, each as a data set with the normalisation of the collection; else itself."""
        if not self.is_collection:
            return [self]
        return [Manifest(self.folder / clip.name, info)
                for clip, info in zip(self.info.clips, self.info.datasets(), strict=True)]

    @property
    def is_collection(self) -> bool:
        return isinstance(self.info, CollectionInfo)

    def clips_of(self, split: str) -> list[Manifest]:
        """Return the clips that have frames of a split; `InputError` if none has."""
        found = [clip for clip in self.clips if clip.shards(split)]
        if not found:
            raise InputError(f"{self.folder}: has no split {split!r}; it has: "
                             f"{', '.join(dict.fromkeys(name for clip in self.clips for name in clip.info.splits))}")
        return found

    @property
    def fingerprint(self) -> str:
        return self.info.fingerprint

    @property
    def channels(self) -> list[str]:
        return self.info.channels

    @property
    def degradation(self) -> Degradation:
        return self.info.degradation

    @property
    def scale(self) -> int:
        return self.degradation.scale

    @property
    def is_grey(self) -> bool:
        """Whether the values are grey levels, 0 black and 255 white, and not those of a field."""
        return is_grey(self.clips[0].info)

    @property
    def is_8bit(self) -> bool:
        """Whether the grey levels are whole numbers, stored as uint8."""
        return self.info.dtype == "uint8"

    @property
    def bits(self) -> int | None:
        """Significant bits of the source, the most of several; None for a field."""
        if self.is_8bit:
            return 8
        found = [clip.info.source.bits for clip in self.clips if clip.info.source.bits is not ABSENT]
        return max(found, default=None)

    @property
    def units(self) -> str | list[str]:
        return self.info.units

    @property
    def variables(self) -> list[Variable]:
        """The variables of a field in the order of the channels; none if there are grey levels or colours."""
        return variables_of(self.clips[0].info)

    @property
    def offset(self) -> float | list[float]:
        """Value that is 0 for the network; (value - offset) / extent is 0..1 on the training split.

        Several variables have a list of them, in the order of the channels; so have `extent` and `subtracted`.
        """
        return self.info.normalisation.offset

    @property
    def extent(self) -> float | list[float]:
        return self.info.normalisation.extent

    @property
    def periodic(self) -> str:
        """Axes at whose ends the frames go on at the other side, in all clips: "", "x", "y" or "xy"."""
        periodic = self.clips[0].info.source.periodic
        return "" if periodic is ABSENT else periodic

    @property
    def subtracted(self) -> float | list[float]:
        """What was subtracted from the values of a field before they were stored; 0 for most."""
        return 0.0 if self.source_offset is ABSENT else self.source_offset

    @property
    def source_offset(self) -> float | list[float]:
        """What `subtracted` is, as the source recorded it, or `ABSENT`; the same for all clips."""
        return self.clips[0].info.source.offset

    @property
    def lr_sizes(self) -> list[tuple[int, int]]:
        """The different sizes of the LR frames of the clips."""
        return list(dict.fromkeys(clip.info.lr_size for clip in self.clips))

    @property
    def has_variables(self) -> bool:
        """Whether the channels are several variables of a field."""
        return has_variables(self.clips[0].info)

    @property
    def hr_size(self) -> tuple[int, int]:
        return self.info.hr_size

    @property
    def lr_size(self) -> tuple[int, int]:
        return self.info.lr_size

    def shards(self, split: str) -> list[ShardEntry]:
        """Return the shards of a clip."""
        return [entry for entry in self.info.shards if entry.split == split]

    def all_shards(self) -> list[tuple[Path, ShardEntry]]:
        """Return (path, entry) of the shards of all clips."""
        return [(clip.folder / entry.name, entry) for clip in self.clips for entry in clip.info.shards]

    def num_samples(self, split: str) -> int:
        return sum(entry.samples for _, entry in self.all_shards() if entry.split == split)


def read_manifest(folder: Path) -> Manifest:
    """Read dataset.json and check that every shard it names is there in full size; `InputError` if not."""
    mend = "make the data set with 'python -m hpc_vsr.preprocess'"
    content = read_sealed(folder / NAME, mend)
    version = content.get("format_version")
    kind = {FORMAT_VERSION: DatasetInfo, COLLECTION_VERSION: CollectionInfo}.get(version)
    if kind is None:
        raise InputError(f"{folder / NAME}: has format version {version}, this program reads {FORMAT_VERSION} and "
                         f"{COLLECTION_VERSION}; {mend}")
    try:
        manifest = Manifest(folder, from_dict(kind, content, ""))
        shards = manifest.all_shards()
    except InputError as error:
        raise InputError(f"{folder / NAME}: was not written by this program ({error}); {mend}") from None
    for path, entry in shards:
        size = path.stat().st_size if path.is_file() else None
        if size != entry.bytes:
            found = "is missing" if size is None else f"has {size} of {entry.bytes} bytes"
            raise InputError(f"{path}: {found}; run the preprocessing again, it rewrites only what is broken")
    return manifest


def check_shards(manifest: Manifest, splits: Collection[str], rank: int = 0, world_size: int = 1) -> None:
    """Compare every byte of a rank's share of the shards with dataset.json.

    `InputError` names the first shard that differs. All ranks together check all shards of these splits.
    """
    entries = [(path, entry) for path, entry in manifest.all_shards() if entry.split in splits]
    for path, entry in entries[rank::world_size]:
        try:
            found = sha256(path)
            reason = "has changed since it was made"
        except OSError as error:
            found, reason = None, f"cannot be read: {error.strerror or error}"
        if found != entry.sha256:
            raise InputError(f"{path}: {reason}; run the preprocessing again, it rewrites only what is broken")


def write_manifest(manifest: Manifest) -> None:
    """Write dataset.json, which makes the data set complete."""
    write_sealed(manifest.folder / NAME, as_dict(manifest.info))
