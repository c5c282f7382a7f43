"""The settings of an upscaling."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hpc_vsr.media.reading import Damaged, Periodic, Reading
from hpc_vsr.media.tags import Codec
from hpc_vsr.models.blurs import BLUR, CAMERA_NOISE
from hpc_vsr.models.settings import TILE, Precision
from hpc_vsr.system.config import as_dict, fingerprint
from hpc_vsr.system.errors import InputError


@dataclass(frozen=True)
class UpscaleSettings:
    """Settings of an upscaling.

    Attributes
    ----------
    run : Path
        Folder of a training, runs/NAME. If not given, the network that comes with hpc-vsr: 2 times, luma, any blur.
    input : Path
        A video, a folder of PNG, TIFF or JPEG images, a TIFF file with pages, or a field (NetCDF, HDF5 or Zarr).
    output : Path
        Output of the same kind as the input: a video (.mp4, .mov, .mkv), a folder of images, or a field (.nc, .zarr).
    error_map : Path
        Also write the error that the network expects at each pixel, as a standard deviation; the run must have been
        calibrated (hpc_vsr.calibrate). Of a video it is a .mkv file without loss, of images a folder, both as grey
        levels times 10; of a field it is a file with NAME_error in the units of the variable NAME.
    start : int
        First frame, counted from 0.
    stop : int
        Stop before this frame; 0 goes to the end.
    compare : bool
        Show bicubic enlargement in the left half of each frame and the network in the right half.
    find_cuts : bool
        Never use frames from the other side of a scene cut.
    codec : str
        Codec of a video. auto takes h264, or another one if only that can hold the size, depth and colours.
    quality : int
        Constant rate factor of h264, hevc and av1, lower is better; 16, 18 and 20 if not given.
    segment : int
        Frames of a segment of a video. Tasks share the segments, and a kill costs one.
    part : str
        I/N, such as 1/8: do only this share of the segments. A run without --part joins them at the end.
    variable : str
        Variable of a field, with its group if it is in one; needed only if it has several. A network of several
        variables takes those that it was trained on, or others in their order, such as uo,vo.
    select : str
        One value of each further dimension of a field, such as "level=500,number=0".
    periodic : str
        Directions in which a field goes on at the other side: none, x, y or xy; auto finds longitudes around the globe.
    sigma : float
        Blur of the input in pixels of the output (standard deviation), for a network that was trained for a range of
        blurs (train.sigma). If not given it is measured, and in a field it is that of the training data.
    noise : float
        Noise of the input in grey levels (standard deviation), for a network that was trained for noisy recordings
        (train.noise). If not given it is measured.
    bits : int
        Significant bits of images or a video deeper than 8 bits, such as 12; found if not given.
    rate : float
        Frames a second of a video whose file has no time stamps.
    damaged : str
        refuse, or repeat: show the frame before a damaged one again, and count it.
    back_projection : int
        Steps of back-projection, which make the enlarged field agree with the input under the training's degradation.
    precision : str
        fp32, bf16, fp16 (GPUs only), or auto, which takes the fastest one on the device.
    device : str
        auto, cpu or cuda.
    tile : int
        Compute frames with a longer side than this (pixels) in tiles: the same result in less memory; 0 never does.
    """

    input: Path
    output: Path
    run: Path | None = None
    error_map: Path | None = None
    start: int = 0
    stop: int = 0
    compare: bool = False
    find_cuts: bool = True
    codec: Codec = "auto"
    quality: int | None = None
    segment: int = 100
    part: str | None = None
    variable: str | list[str] | None = None
    select: str | None = None
    periodic: Periodic = "auto"
    sigma: float | None = None
    noise: float | None = None
    bits: int | None = None
    rate: float | None = None
    damaged: Damaged = "refuse"
    back_projection: int = 0
    precision: Precision = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    tile: int = TILE

    def __post_init__(self):
        if isinstance(self.variable, list):
            object.__setattr__(self, "variable", ",".join(self.variable))
        if self.start < 0 or self.stop < 0 or 0 < self.stop <= self.start:
            raise InputError(f"--start, --stop: frames {self.start} to {self.stop} are no range; frames count from 0 "
                             "and --stop is the one after the last")
        if self.sigma is not None and not 0 <= self.sigma <= BLUR.most:
            raise InputError(f"--sigma: must be 0 (no blur) to {BLUR.most:g} pixels, found {self.sigma}")
        if self.noise is not None and not 0 <= self.noise <= CAMERA_NOISE.most:
            raise InputError(f"--noise: must be 0 to {CAMERA_NOISE.most:g} grey levels, found {self.noise}")
        if self.segment < 1:
            raise InputError(f"--segment: must be at least 1 frame, found {self.segment}")
        if not 0 <= self.back_projection <= 100:
            raise InputError(f"--back-projection: must be 0 to 100 steps, found {self.back_projection}")
        if self.tile < 0 or 0 < self.tile < 32:
            raise InputError(f"--tile: must be 0 (none) or at least 32 pixels, found {self.tile}")
        if self.quality is not None and not 0 <= self.quality <= 63:
            raise InputError(f"--quality: must be 0 to 63, found {self.quality}")
        self.share()

    @property
    def reading(self) -> Reading:
        """How the source is to be read."""
        return Reading(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Reading)})

    def refuse(self, kind: str, names: Sequence[str]) -> None:
        """Raise `InputError` if one of these settings is given, for an input for which it does nothing."""
        for name in names:
            if getattr(self, name) != getattr(type(self), name):
                option = f"--{name.replace('_', '-')}"
                raise InputError(f"{option}: does nothing for {kind}, and {self.input} is one; leave it out")

    def share(self) -> tuple[int, int]:
        """Return (index from 0, number of parts) of `part`; (0, 1) without one."""
        if self.part is None:
            return 0, 1
        index, slash, count = self.part.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise InputError(f"--part: expected I/N with I from 1 to N, such as 1/8, found {self.part}")
        return int(index) - 1, int(count)

    def frames(self, num_frames: int) -> range:
        """Return the frames to upscale of an input with `num_frames`; raise `InputError` if there are none."""
        stop = min(self.stop or num_frames, num_frames)
        if self.start >= stop:
            raise InputError(f"--start: {self.input} has {num_frames} frames, 0 to {num_frames - 1}, and not "
                             f"number {self.start}")
        return range(self.start, stop)


# do not change a segment, or are compared in another way
SHARED = ("output", "part", "device", "tile", "run", "input", "error_map")


def fingerprint_of(settings: UpscaleSettings, **facts: Any) -> str:
    """Return sixteen hexadecimal digits that identify an upscaling by its settings and by facts such as checksums."""
    ranges = ("sigma", "noise")  # without them the fingerprint is that of versions that did not have them
    chosen = {name: value for name, value in as_dict(settings).items()
              if name not in SHARED and not (name in ranges and value is None)}
    return fingerprint({**chosen, **facts})
