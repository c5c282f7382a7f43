"""The interface of a source of frames, and the table of the kinds of sources.

A source gives any run of its frames exactly, without reading the others. To add one, write a module here with a
function that checks its input and returns an object of the interface `Source`, and add a line to `KINDS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from hpc_vsr.media.reading import Facts, Reading
from hpc_vsr.system.errors import InputError

if TYPE_CHECKING:  # --help and status need no arrays
    import numpy as np

Channels = Literal["y", "rgb"]
Option = Literal["video", "frames", "field"]
OPTIONS: tuple[Option, ...] = get_args(Option)


class Source(Protocol):
    """A video, an image sequence or a field, indexed by frame.

    Attributes
    ----------
    files : list of Path
        Files that it is read from, in a fixed order; their bytes identify the source.
    num_frames, height, width : int
    channels : tuple of str
        ("Y",), ("R", "G", "B") or the names of the variables.
    dtype : str
        "uint8" (values 0..255), or "float32": grey levels 0..255 with fractions if `description` has "white", physical
        units if not.
    description : dict
        Other facts for a reader of the data set (JSON values): codec, colour matrix, units, ... All that decides the
        values of the frames is among them, because the fingerprint of a data set covers it.
    facts : Facts
    """

    files: list[Path]
    num_frames: int
    height: int
    width: int
    channels: tuple[str, ...]
    dtype: str
    description: dict
    facts: Facts

    def read(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield the frames start..stop-1 in order.

        Each is a (C, H, W) array without NaN, and a mask: None, or an (H, W) or (C, H, W) bool array that is False
        where the value was missing and has been filled.
        """
        ...


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    Attributes
    ----------
    option : {"video", "frames", "field"}
        The option of a recipe that names it. An upscaling of it makes a video, images or a field.
    function : str
        "module.name" in this folder: the function that opens a path. Its module is loaded only when it is needed.
    arguments : tuple of str
        What the function takes besides the path: "channels", "num_threads", and fields of `Reading`.
    suffixes : tuple of str
        Endings by which its paths are recognised, in lower case.
    is_folder : bool
        Whether a folder without such an ending is of this kind.
    """

    option: Option
    function: str
    arguments: tuple[str, ...]
    suffixes: tuple[str, ...] = ()
    is_folder: bool = False

    @property
    def title(self) -> str:
        return {"video": "a video", "frames": "a folder of images", "field": "a field"}[self.option]

    def fits(self, path: Path) -> bool:
        return path.suffix.lower() in self.suffixes or self.is_folder and path.is_dir()


# The first kind that fits a path is taken; if none fits, the first one of the option, or of the table.
KINDS = (
    Kind("video", "video_source.open_video", ("channels", "num_threads", "bits", "rate", "damaged")),
    Kind("field", "field_source.open_field", ("variable", "select", "periodic"),
         (".nc", ".nc4", ".cdf", ".h5", ".hdf5", ".he5", ".mat", ".zarr")),
    Kind("frames", "image_source.open_images", ("channels", "bits"), (".tif", ".tiff"), is_folder=True),
)


def find_kind(path: Path, option: Option | None = None) -> Kind:
    """Return the kind of source that a path is; `option` restricts the choice to the kinds of that option."""
    kinds = [kind for kind in KINDS if option in (None, kind.option)]
    return next((kind for kind in kinds if kind.fits(path)), kinds[0])


def open_source(path: Path, option: Option | None = None, channels: Channels = "y", reading: Reading | None = None,
                num_threads: int = 0) -> Source:
    """Open a source for reading by frame number.

    Parameters
    ----------
    path : Path
    option : {"video", "frames", "field"}, optional
        What the path is; if not given, the path itself tells.
    channels : {"y", "rgb"}
        Channels to read from a video or images.
    reading : Reading, optional
        What the user says about the input.
    num_threads : int
        Threads of a video's decoder; 0 lets it choose.

    Raises
    ------
    InputError
        If the path cannot be read as what it is, or a setting of `reading` does nothing for it.
    """
    kind = find_kind(path, option)
    module, _, name = kind.function.partition(".")
    settings = vars(reading or Reading())
    for setting, default in vars(Reading()).items():
        if setting not in kind.arguments and settings[setting] != default:
            raise InputError(f"--{setting}: does nothing for {path}, which is read as {kind.title}; leave it out")
    given = {**settings, "channels": channels, "num_threads": num_threads}
    function = getattr(importlib.import_module(f"hpc_vsr.media.{module}"), name)
    return function(path, **{argument: given[argument] for argument in kind.arguments})
