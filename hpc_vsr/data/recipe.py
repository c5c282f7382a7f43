"""A recipe: what a data set is made from, and how."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.splits import SplitFractions
from hpc_vsr.media.clip_files import is_collection, is_pattern
from hpc_vsr.media.reading import Damaged, Periodic, Reading
from hpc_vsr.media.source import OPTIONS, Channels, Option, find_kind
from hpc_vsr.system.config import from_dict, named_in_errors, read_toml
from hpc_vsr.system.errors import InputError


@dataclass(frozen=True)
class Recipe:
    """Recipe of a data set: its source, what is learned from it, and how it is degraded, split and sharded.

    Several sources are a collection: one data set of many clips, whose windows never cross from one clip into another.

    Attributes
    ----------
    video : list of Path
        Video file of any type that FFmpeg reads; several, or a quoted pattern such as "runs/*.mp4", are clips.
    frames : list of Path
        Folder of PNG, TIFF or JPEG images, in the order of the numbers in their names; or one TIFF file with pages.
        Several, a pattern, or a folder of such folders are clips.
    field : list of Path
        NetCDF, HDF5 or Zarr file, or a quoted pattern for several that follow each other, such as "out_*.nc"; needs
        --variable. Several --field are clips.
    variable : str
        Variable of the field, with dimensions (time, y, x), and with its group if it is in one: tasks/vorticity.
        Several, as u,v or in a list, are the channels of one data set, each with its own range and units.
    select : str
        One value of each further dimension of a field, such as "level=500,number=0".
    periodic : str
        Directions in which a field goes on at the other side: none, x, y or xy; auto finds longitudes around the globe.
    bits : int
        Significant bits of images or a video deeper than 8 bits, such as 12; found if not given.
    rate : float
        Frames a second of a video whose file has no time stamps.
    damaged : str
        refuse, or repeat: show the frame before a damaged one again, and count it.
    out : Path
        Folder of the data set; the default is data/NAME, after the source.
    shards : int
        Number of files over all splits, in a collection of each clip; at least one for each stretch of frames without a
        gap.
    channels : str
        y: luma of BT.601 in full range. rgb: three channels. A field has a channel for each variable.
    degradation : Degradation
    split : SplitFractions
    """

    video: list[Path] | Path | None = None
    frames: list[Path] | Path | None = None
    field: list[Path] | Path | None = None
    variable: str | list[str] | None = None
    select: str | None = None
    periodic: Periodic = "auto"
    bits: int | None = None
    rate: float | None = None
    damaged: Damaged = "refuse"
    out: Path | None = None
    shards: int = 8
    channels: Channels = "y"
    degradation: Degradation = dataclasses.field(default_factory=Degradation)
    split: SplitFractions = dataclasses.field(default_factory=SplitFractions)

    def __post_init__(self):
        if isinstance(self.variable, list):
            object.__setattr__(self, "variable", ",".join(self.variable))
        given = [f"--{name}" for name in OPTIONS if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError("give exactly one of --video, --frames and --field "
                             f"(got {' and '.join(given) or 'none'})")
        if not self.sources:
            raise InputError(f"{given[0]}: names no file; give one, several, or a pattern")
        takes_variable = self.field is not None and "variable" in find_kind(self.sources[0], "field").arguments
        if takes_variable != (self.variable is not None):
            raise InputError("--field and --variable go together: give the file and the name of the variable in it")
        if self.field is not None and self.channels != "y":
            raise InputError(f"--channels {self.channels}: a field has a channel for each --variable; leave it out")

    @property
    def source_setting(self) -> Option:
        """Setting that names the source."""
        return next(name for name in OPTIONS if getattr(self, name) is not None)

    @property
    def sources(self) -> list[Path]:
        """Paths that it names; a pattern, or a folder of folders, stands for several clips."""
        given = getattr(self, self.source_setting)
        return given if isinstance(given, list) else [given]

    @property
    def is_collection(self) -> bool:
        """Whether it makes a data set of clips, even if it finds only one."""
        return is_collection(self.sources, self.source_setting)

    @property
    def reading(self) -> Reading:
        """How the source is to be read."""
        return Reading(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Reading)})

    @property
    def folder(self) -> Path:
        """Folder of the data set; without `out` it has the name of the source, for several that of their folder."""
        first = self.sources[0].absolute()
        name = "" if len(self.sources) > 1 else re.sub(r"[*?\[\]]+", "", first.resolve().stem).strip("_-.")
        if not name and (len(self.sources) > 1 or is_pattern(first) and self.field is None):
            above = next(folder for folder in first.parents if not is_pattern(folder))
            name = above.name
        return self.out or Path("data") / (name or "field")


def read_recipe(path: Path) -> Recipe:
    """Return the recipe of a TOML file, without a look at its source."""
    with named_in_errors(path):
        return from_dict(Recipe, read_toml(path), str(path))
