"""Reads and writes ``dataset.json``, which describes a data set. It is written last and marks a complete folder."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.splits import REACH
from hpc_vsr.system.config import from_dict
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import read_sealed, sha256, write_sealed

FORMAT_VERSION = 1
NAME = "dataset.json"
SHARD_NAME = re.compile(r"(train|val|test)-\d{5}-of-\d{5}\.h5")
MAX_CHANNELS = 3
MAX_FRAMES = 1 << 40


@dataclass(frozen=True)
class Manifest:
    """A complete data set.

    Attributes
    ----------
    folder : Path
    content : dict
        All of dataset.json; docs/formats.md describes it. The stages read the properties below.
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
        """Value that is 0 for the network; (value - offset) / extent is 0..1 on the training split."""
        return float(self.content["normalisation"]["offset"])

    @property
    def extent(self) -> float:
        return float(self.content["normalisation"]["extent"])

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
    content = read_sealed(folder / NAME, mend)
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(f"{folder / NAME}: has format version {version}, this program reads {FORMAT_VERSION}; {mend}")
    try:
        _check_content(content)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:  # not written by this program
        raise InputError(f"{folder / NAME}: was not written by this program ({type(error).__name__}: {error}); {mend}"
                         ) from None
    manifest = Manifest(folder, content)
    for entry in content["shards"]:
        path = folder / entry["name"]
        size = path.stat().st_size if path.is_file() else None
        if size != entry["bytes"]:
            found = "is missing" if size is None else f"has {size} of {entry['bytes']} bytes"
            raise InputError(f"{path}: {found}; run the preprocessing again, it rewrites only what is broken")
    return manifest


def _check_content(content: dict) -> None:
    """Raise `ValueError`, or what a wrong type raises, unless all that the stages read is there and consistent."""
    degradation = from_dict(Degradation, content["degradation"], "degradation")
    (height, width), lr_size = content["hr_size"], content["lr_size"]
    _expect(_are_counts(height, width, *lr_size) and [height, width] == [degradation.scale * side for side in lr_size],
            "hr_size and lr_size")
    channels, itemsize = content["channels"], {"uint8": 1, "float32": 4}[content["dtype"]]
    _expect(0 < len(channels) <= MAX_CHANNELS, "channels")
    _expect(_are_texts(*channels, content["units"], content["fingerprint"], content["source"]["name"]), "names")
    low, high = content["value_range"]
    offset, extent = content["normalisation"]["offset"], content["normalisation"]["extent"]
    _expect(_are_finite(low, high, offset, extent) and low <= high and extent > 0, "value_range and normalisation")
    splits = content["splits"]
    _expect(set(splits) == {"train", "val", "test"}
            and all(0 <= start < stop <= MAX_FRAMES for start, stop in splits.values()), "splits")
    least = len(channels) * itemsize * (height * width + lr_size[0] * lr_size[1])
    for entry in content["shards"]:
        (start, stop), first, frames = splits[entry["split"]], entry["first_frame"], entry["frames"]
        _expect(SHARD_NAME.fullmatch(entry["name"]) and entry["name"].startswith(entry["split"]), "name of a shard")
        _expect(re.fullmatch("[0-9a-f]{64}", entry["sha256"]) and _are_finite(entry["hr_min"], entry["hr_max"]),
                entry["name"])
        _expect(_are_counts(frames, entry["samples"], entry["bytes"]) and type(first) is int, entry["name"])
        _expect(start <= first < first + frames <= stop and entry["samples"] == frames - 2 * REACH, entry["name"])
        _expect(entry["bytes"] >= frames * least, f"{entry['name']}: bytes")


def _expect(condition: Any, what: str) -> None:
    if not condition:
        raise ValueError(f"wrong {what}")


def _are_counts(*values: Any) -> bool:
    return all(type(value) is int and value > 0 for value in values)


def _are_texts(*values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _are_finite(*values: Any) -> bool:
    return all(type(value) in (int, float) and math.isfinite(value) for value in values)


def check_shards(manifest: Manifest, splits: Collection[str], rank: int = 0, world_size: int = 1) -> None:
    """Compare every byte of a rank's share of the shards with dataset.json.

    `InputError` names the first shard that differs. All ranks together check all shards of these splits.
    """
    entries = [entry for entry in manifest.content["shards"] if entry["split"] in splits]
    for entry in entries[rank::world_size]:
        path = manifest.folder / entry["name"]
        try:
            found = sha256(path)
            reason = "has changed since it was made"
        except OSError as error:
            found, reason = None, f"cannot be read: {error.strerror or error}"
        if found != entry["sha256"]:
            raise InputError(f"{path}: {reason}; run the preprocessing again, it rewrites only what is broken")


def write_manifest(manifest: Manifest) -> None:
    """Write dataset.json, which makes the data set complete."""
    write_sealed(manifest.folder / NAME, manifest.content)
