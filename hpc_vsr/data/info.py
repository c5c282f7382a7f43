"""The records in ``dataset.json``; docs/formats.md describes their keys."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.splits import REACH, SPLITS
from hpc_vsr.system.config import ABSENT, Record
from hpc_vsr.system.errors import InputError

FORMAT_VERSION = 1
COLLECTION_VERSION = 2
SHARD_NAME = re.compile(r"(train|val|test)-\d{5}-of-\d{5}\.h5")
CHECKSUM = re.compile("[0-9a-f]{64}")
MAX_CHANNELS = 3
CLIP_NAME = re.compile(r"[^./\x00][^/\x00]*")
MAX_FRAMES = 1 << 40


@dataclass(frozen=True, kw_only=True)
class AxisInfo(Record):
    """Rows or columns of a field: name, units, and size, first and last value of the coordinate."""

    name: str
    units: str
    size: int = ABSENT
    first: float
    last: float


@dataclass(frozen=True, kw_only=True)
class SourceInfo(Record):
    """The source of a data set: its file, its size, and what the reader of its kind knows of it."""

    name: str
    sha256: str
    frames: int
    height: int
    width: int
    breaks: list[int] = ABSENT
    # images or a video of more than 8 bits: the stored value of white, and the significant bits
    white: int = ABSENT
    bits: int = ABSENT
    # a folder of images
    image_type: str = ABSENT
    first: str = ABSENT
    last: str = ABSENT
    orientation: str = ABSENT
    transparency: str = ABSENT
    # a video
    codec: str = ABSENT
    pixel_format: str = ABSENT
    frames_per_second: str = ABSENT
    colour_matrix: str = ABSENT
    colour_range: str = ABSENT
    luma: str = ABSENT
    stream: int = ABSENT
    left_out: int = ABSENT
    order: str = ABSENT
    dropped: list[int] = ABSENT
    damaged: list[int] = ABSENT
    # a field
    variable: str = ABSENT
    units: str = ABSENT
    long_name: str = ABSENT
    dimensions: list[str] = ABSENT
    coordinates: list[AxisInfo] = ABSENT
    selection: dict[str, Any] = ABSENT
    masked_by: list[str] = ABSENT
    zeros: str = ABSENT
    offset: float = ABSENT
    periodic: Literal["x", "y", "xy"] = ABSENT

    def __post_init__(self):
        _expect(self.coordinates is ABSENT or len(self.coordinates) in (0, 2), "coordinates of the source")


@dataclass(frozen=True)
class Normalisation(Record):
    """Values of the network: (value - offset) / extent is 0..1 on the training split."""

    offset: float
    extent: float


@dataclass(frozen=True)
class ShardEntry(Record):
    """A shard: its frames of the source, its samples, its file, and its lowest and highest HR value."""

    name: str
    split: Literal["train", "val", "test"]
    first_frame: int
    frames: int
    samples: int
    bytes: int
    sha256: str
    hr_min: float
    hr_max: float

    @property
    def stop_frame(self) -> int:
        return self.first_frame + self.frames

    def __post_init__(self):
        _expect(SHARD_NAME.fullmatch(self.name) and self.name.startswith(f"{self.split}-"), "name of a shard")
        _expect(CHECKSUM.fullmatch(self.sha256) and 0 < self.samples == self.frames - 2 * REACH, self.name)


@dataclass(frozen=True)
class DatasetLayout(Record):
    """All of dataset.json that is known before the first frame is decoded."""

    format_version: int
    source: SourceInfo
    channels: list[str]
    dtype: Literal["uint8", "float32"]
    units: str
    degradation: Degradation
    lr_size: tuple[int, int]
    hr_size: tuple[int, int]
    splits: dict[str, tuple[int, int]]
    num_shards: int
    fingerprint: str
    recipe: dict[str, Any]

    @property
    def bytes_per_frame(self) -> int:
        """Bytes of an LR frame and its HR frame."""
        pixels = math.prod(self.lr_size) + math.prod(self.hr_size)
        return pixels * len(self.channels) * {"uint8": 1, "float32": 4}[self.dtype]


@dataclass(frozen=True)
class DatasetInfo(DatasetLayout):
    """All of dataset.json."""

    value_range: tuple[float, float]
    normalisation: Normalisation
    shards: list[ShardEntry]

    def __post_init__(self):
        check_consistent(self)
        check_splits(self.splits)
        self.check_shards()

    def check_shards(self) -> None:
        """Raise `InputError` unless the shards hold frames of their splits."""
        for entry in self.shards:
            start, stop = self.splits.get(entry.split, (0, 0))
            _expect(start <= entry.first_frame and entry.stop_frame <= stop, f"frames of {entry.name}")
            _expect(entry.bytes >= entry.frames * self.bytes_per_frame, f"bytes of {entry.name}")


@dataclass(frozen=True)
class DatasetOfClip(DatasetInfo):
    """A clip of a collection as a data set: its own splits, one to three, and the normalisation of the collection."""

    def __post_init__(self):
        check_consistent(self)
        self.check_shards()


@dataclass(frozen=True)
class ClipInfo(Record):
    """A clip in dataset.json of a collection; `name` is the folder of its shards."""

    name: str
    source: SourceInfo
    lr_size: tuple[int, int]
    hr_size: tuple[int, int]
    splits: dict[str, tuple[int, int]]
    num_shards: int
    fingerprint: str
    shards: list[ShardEntry]

    def __post_init__(self):
        _expect(CLIP_NAME.fullmatch(self.name), "name of a clip")


@dataclass(frozen=True)
class CollectionInfo(Record):
    """All of dataset.json of a collection: what its clips share, and the clips."""

    format_version: int
    channels: list[str]
    dtype: Literal["uint8", "float32"]
    units: str
    degradation: Degradation
    fingerprint: str
    recipe: dict[str, Any]
    value_range: tuple[float, float]
    normalisation: Normalisation
    clips: list[ClipInfo]

    def __post_init__(self):
        names = {clip.name for clip in self.clips}
        _expect(0 < len(self.clips) == len(names), "clips")
        check_splits({split for clip in self.clips for split in clip.splits})

    def datasets(self) -> list[DatasetOfClip]:
        """Return each clip as a data set."""
        shared = {name: getattr(self, name) for name in ("channels", "dtype", "units", "degradation", "value_range",
                                                         "normalisation")}
        return [DatasetOfClip(format_version=FORMAT_VERSION, recipe={}, **shared,
                              **{name: value for name, value in vars(clip).items() if name != "name"})
                for clip in self.clips]


def is_grey(info: Any) -> bool:
    """Return whether a data set has grey levels, 0 black and 255 white, of any depth, and not the values of a field.

    `info` is a record with its `dtype` and its `source`.
    """
    return info.dtype == "uint8" or info.source.white is not ABSENT


def check_consistent(info: Any) -> None:
    """Raise `InputError` unless the sizes, channels, values and splits of a record of a data set agree."""
    scale = info.degradation.scale
    _expect(min(info.lr_size) > 0 and info.hr_size == tuple(scale * side for side in info.lr_size),
            "hr_size or lr_size")
    _expect(0 < len(info.channels) <= MAX_CHANNELS, "channels")
    low, high = info.value_range
    _expect(low <= high and info.normalisation.extent > 0, "value_range or normalisation")
    _expect(info.splits and set(info.splits) <= set(SPLITS)
            and all(0 <= start < stop <= MAX_FRAMES for start, stop in info.splits.values()), "splits")


def check_splits(splits: Collection[str]) -> None:
    """Raise `InputError` unless there are all three splits."""
    _expect(set(splits) == set(SPLITS), "splits")


def _expect(condition: Any, what: str) -> None:
    if not condition:
        raise InputError(f"wrong {what}")
