"""``dataset.json``: what a data set is made of. It is written last, so a folder that has it is complete."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpc_vsr.degrade import Degradation
from hpc_vsr.errors import InputError
from hpc_vsr.files import read_json, write_json
from hpc_vsr.shards import FORMAT_VERSION

NAME = "dataset.json"


@dataclass(frozen=True)
class Manifest:
    """A complete data set.

    Attributes
    ----------
    folder : Path
    content : dict
        The whole of dataset.json; docs/formats.md describes it. The properties below are what the stages read.
    """

    folder: Path
    content: dict

    @property
    def name(self) -> str:
        return self.folder.absolute().name

    @property
    def fingerprint(self) -> str:
        return self.content["fingerprint"]

    @property
    def channels(self) -> list[str]:
        return self.content["channels"]

    @property
    def degradation(self) -> Degradation:
        return Degradation(**self.content["degradation"])

    @property
    def scale(self) -> int:
        return self.degradation.scale

    @property
    def is_8bit(self) -> bool:
        return self.content["dtype"] == "uint8"

    @property
    def units(self) -> str:
        return self.content["units"]

    @property
    def offset(self) -> float:
        """The value that is 0 for the network; (value - offset) / extent is 0..1 on the training split."""
        return self.content["normalisation"]["offset"]

    @property
    def extent(self) -> float:
        return self.content["normalisation"]["extent"]

    @property
    def hr_size(self) -> tuple[int, int]:
        return tuple(self.content["hr_size"])

    @property
    def lr_size(self) -> tuple[int, int]:
        return tuple(self.content["lr_size"])

    def shards(self, split: str) -> list[dict]:
        return [entry for entry in self.content["shards"] if entry["split"] == split]

    def num_samples(self, split: str) -> int:
        return sum(entry["samples"] for entry in self.shards(split))


def read_manifest(folder: Path) -> Manifest:
    """Read dataset.json and check that every shard it names is there in full size; `InputError` if not."""
    mend = "make the data set with 'python -m hpc_vsr.preprocess'"
    content = read_json(folder / NAME, mend)
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise InputError(f"{folder / NAME}: has format version {version}, this program reads {FORMAT_VERSION}; {mend}")
    manifest = Manifest(folder, content)
    for entry in content["shards"]:
        path = folder / entry["name"]
        size = path.stat().st_size if path.is_file() else None
        if size != entry["bytes"]:
            found = "is missing" if size is None else f"has {size} of {entry['bytes']} bytes"
            raise InputError(f"{path}: {found}; run the preprocessing again, it writes only what is broken")
    return manifest


def write_manifest(manifest: Manifest) -> None:
    """Write dataset.json, which makes the data set complete."""
    write_json(manifest.folder / NAME, manifest.content)
