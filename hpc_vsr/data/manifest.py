"""Reads and writes ``dataset.json``, which describes a data set. It is written last and marks a complete folder."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.info import (
    FORMAT_VERSION,
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
    info : DatasetInfo
        All of dataset.json. The stages read the properties below.
    """

    folder: Path
    info: DatasetInfo

    @property
    def name(self) -> str:
        return self.folder.absolute().name

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
        return is_grey(self.info)

    @property
    def is_8bit(self) -> bool:
        """Whether the grey levels are whole numbers, stored as uint8."""
        return self.info.dtype == "uint8"

    @property
    def bits(self) -> int | None:
        """Significant bits of the source; None for a field."""
        if self.is_8bit:
            return 8
        return None if self.info.source.bits is ABSENT else self.info.source.bits

    @property
    def units(self) -> str | list[str]:
        return self.info.units

    @property
    def variables(self) -> list[Variable]:
        """The variables of a field in the order of the channels; none if there are grey levels or colours."""
        return variables_of(self.info)

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
        """Axes at whose ends the frames go on at the other side: "", "x", "y" or "xy"."""
        periodic = self.info.source.periodic
        return "" if periodic is ABSENT else periodic

    @property
    def subtracted(self) -> float | list[float]:
        """What was subtracted from the values of a field before they were stored; 0 for most."""
        offset = self.info.source.offset
        return 0.0 if offset is ABSENT else offset

    @property
    def has_variables(self) -> bool:
        """Whether the channels are several variables of a field."""
        return has_variables(self.info)

    @property
    def hr_size(self) -> tuple[int, int]:
        return self.info.hr_size

    @property
    def lr_size(self) -> tuple[int, int]:
        return self.info.lr_size

    def shards(self, split: str) -> list[ShardEntry]:
        return [entry for entry in self.info.shards if entry.split == split]

    def num_samples(self, split: str) -> int:
        return sum(entry.samples for entry in self.shards(split))


def read_manifest(folder: Path) -> Manifest:
    """Read dataset.json and check that every shard it names is there in full size; `InputError` if not."""
    mend = "make the data set with 'python -m hpc_vsr.preprocess'"
    content = read_sealed(folder / NAME, mend)
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(f"{folder / NAME}: has format version {version}, this program reads {FORMAT_VERSION}; {mend}")
    try:
        info = from_dict(DatasetInfo, content, "")
    except InputError as error:
        raise InputError(f"{folder / NAME}: was not written by this program ({error}); {mend}") from None
    for entry in info.shards:
        path = folder / entry.name
        size = path.stat().st_size if path.is_file() else None
        if size != entry.bytes:
            found = "is missing" if size is None else f"has {size} of {entry.bytes} bytes"
            raise InputError(f"{path}: {found}; run the preprocessing again, it rewrites only what is broken")
    return Manifest(folder, info)


def check_shards(manifest: Manifest, splits: Collection[str], rank: int = 0, world_size: int = 1) -> None:
    """Compare every byte of a rank's share of the shards with dataset.json.

    `InputError` names the first shard that differs. All ranks together check all shards of these splits.
    """
    entries = [entry for entry in manifest.info.shards if entry.split in splits]
    for entry in entries[rank::world_size]:
        path = manifest.folder / entry.name
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
