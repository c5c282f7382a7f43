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
MAX_CHANNELS, MAX_VARIABLES = 3, 32
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
    """The source of a data set: its file, its size, and what the reader of its kind knows of it.

    Of several variables of a field, what is known of each is a list in the order of the channels.
    """

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
    variable: str | list[str] = ABSENT
    units: str | list[str] = ABSENT
    long_name: str | list[str] = ABSENT
    dimensions: list[str] = ABSENT
    coordinates: list[AxisInfo] = ABSENT
    selection: dict[str, Any] = ABSENT
    masked_by: list[str] | list[list[str]] = ABSENT
    zeros: str | list[str] = ABSENT
    offset: float | list[float] = ABSENT
    periodic: Literal["x", "y", "xy"] = ABSENT

    def __post_init__(self):
        _expect(self.coordinates is ABSENT or len(self.coordinates) in (0, 2), "coordinates of the source")
        if isinstance(self.variable, list):
            each = [self.units, self.long_name, *(one for one in (self.masked_by, self.zeros, self.offset)
                                                  if one is not ABSENT)]
            _expect(all(isinstance(one, list) and len(one) == len(self.variable) for one in each),
                    "number of variables")


@dataclass(frozen=True)
class Normalisation(Record):
    """Values of the network: (value - offset) / extent is 0..1 on the training split.

    Of several variables each has its own, in lists in the order of the channels.
    """

    offset: float | list[float]
    extent: float | list[float]


@dataclass(frozen=True)
class Variable:
    """A variable of a field: its name, its units, and the least value and the range of HR in the training split."""

    name: str
    units: str
    offset: float
    extent: float


@dataclass(frozen=True)
class ShardEntry(Record):
    """A shard: its frames of the source, its samples, its file, and its lowest and highest HR value.

    Of several variables these values are lists, in the order of the channels.
    """

    name: str
    split: Literal["train", "val", "test"]
    first_frame: int
    frames: int
    samples: int
    bytes: int
    sha256: str
    hr_min: float | list[float]
    hr_max: float | list[float]

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
    units: str | list[str]
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

    value_range: tuple[float, float] | list[tuple[float, float]]
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
            _expect(all(isinstance(one, list) == has_variables(self) and
                        len(for_channels(one, len(self.channels))) == len(self.channels)
                        for one in (entry.hr_min, entry.hr_max)), f"values of {entry.name}")


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
    units: str | list[str]
    degradation: Degradation
    fingerprint: str
    recipe: dict[str, Any]
    value_range: tuple[float, float] | list[tuple[float, float]]
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


def has_variables(info: Any) -> bool:
    """Return whether a data set has several variables of a field as its channels; `info` has its `source`."""
    return isinstance(info.source.variable, list)


def variables_of(info: Any) -> list[Variable]:
    """Return the variables of a field in the order of the channels, each with its units and its own range.

    There is one for a field of one channel, and none for grey levels or colours. `info` is a record of a data set.
    """
    if is_grey(info) or len(info.channels) > 1 and not has_variables(info):
        return []
    count = len(info.channels)
    units = info.units if isinstance(info.units, list) else [info.units]
    each = (for_channels(info.normalisation.offset, count), for_channels(info.normalisation.extent, count))
    return [Variable(*facts) for facts in zip(info.channels, units, *each, strict=True)]


def for_channels(value: float | list[float], count: int) -> list[float]:
    """Return a number for each of `count` channels; all have the same if there is only one number."""
    return list(value) if isinstance(value, list) else [value] * count


def check_consistent(info: Any) -> None:
    """Raise `InputError` unless the sizes, channels, values and splits of a record of a data set agree."""
    scale = info.degradation.scale
    _expect(min(info.lr_size) > 0 and info.hr_size == tuple(scale * side for side in info.lr_size),
            "hr_size or lr_size")
    count, several = len(info.channels), has_variables(info)
    _expect(0 < count <= (MAX_VARIABLES if several else MAX_CHANNELS), "channels")
    # several variables have a list of each of these, with one item for each channel
    each = (info.units, info.value_range, info.normalisation.offset, info.normalisation.extent)
    _expect(all(isinstance(one, list) == several for one in each)
            and (not several or all(len(one) == count for one in (*each, info.source.variable))),
            "number of channels")
    _expect(all(low <= high for low, high in (info.value_range if several else [info.value_range]))
            and all(extent > 0 for extent in for_channels(info.normalisation.extent, count)),
            "value_range or normalisation")
    _expect(info.splits and set(info.splits) <= set(SPLITS)
            and all(0 <= start < stop <= MAX_FRAMES for start, stop in info.splits.values()), "splits")


def check_splits(splits: Collection[str]) -> None:
    """Raise `InputError` unless there are all three splits."""
    _expect(set(splits) == set(SPLITS), "splits")


def _expect(condition: Any, what: str) -> None:
    if not condition:
        raise InputError(f"wrong {what}")
