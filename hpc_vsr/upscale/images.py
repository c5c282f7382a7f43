"""Enlarges images to 2, 3 or 4 times their size, one output for each image or page, with the same names and depth."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import cv2
import numpy as np

from hpc_vsr.media.chroma import enlarge_plane
from hpc_vsr.media.image_source import ImageSource
from hpc_vsr.media.planes import GREY
from hpc_vsr.media.tiff_file import encode_with_alpha
from hpc_vsr.models.settings import Choice
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import create_folder, remove_left_together, write_whole
from hpc_vsr.system.lock import Held, only_writer
from hpc_vsr.system.progress import Progress
from hpc_vsr.system.threads import read_ahead
from hpc_vsr.upscale.checks import follow_input, warn_of_blur, warn_of_noise, warn_of_rounding
from hpc_vsr.upscale.errors import to_grey
from hpc_vsr.upscale.frames import show_comparison
from hpc_vsr.upscale.record import join_upscaling
from hpc_vsr.upscale.settings import UpscaleSettings, fingerprint_of
from hpc_vsr.upscale.stream import READ_AHEAD, Frame, enlarge_stream
from hpc_vsr.upscale.upscaler import Upscaler
from hpc_vsr.upscale.windows import CONTEXT, pick_few, windows

RECORD = "upscale.json"
CHECK_SECONDS = 2.0
TIFF = (".tif", ".tiff")
LOSSLESS = (".png", *TIFF)


class _Picture(NamedTuple):
    """An image: RGB (H, W, 3), float32 0..1, and its transparency as stored, (H, W, 1) or (H, W, 0)."""

    rgb: np.ndarray
    alpha: np.ndarray


@dataclass(frozen=True)
class ImageUpscaling:
    """The upscaling of a folder of images; see `hpc_vsr.upscale.loop.Upscaling`.

    Attributes
    ----------
    settings : UpscaleSettings
    source : ImageSource
    frames : range
        The images to upscale.
    names : list of str
        Names of their outputs.
    fingerprint : str
        Fingerprint of the input (names, sizes and times of its files), the network and the settings.
    """

    settings: UpscaleSettings
    source: ImageSource
    frames: range
    names: list[str]
    fingerprint: str

    kind: ClassVar[str] = "a folder of images"
    is_field: ClassVar[bool] = False
    unused: ClassVar[tuple[str, ...]] = ("codec", "quality", "segment", "back_projection")
    item: ClassVar[str] = "image"
    coding: ClassVar[str] = ""
    pieces: ClassVar[str] = ""

    @classmethod
    def plan(cls, settings: UpscaleSettings, upscaler: Upscaler, source: ImageSource) -> ImageUpscaling:
        """Check the input; warn if its blur is far from that of the training."""
        if source.white is None:
            raise InputError(f"{source.files[0]}: has {source.stored} pixels, whose white is not known; "
                             "write 8 or 16 bit, or use a NetCDF file for physical values")
        if settings.output.resolve() == settings.input.resolve():
            raise InputError(f"{settings.output}: is the input; choose another --output")
        files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in source.files]
        frames = settings.frames(source.num_frames)
        names = [_output_name(Path(source.names[frame])) for frame in frames]
        if len(set(names)) < len(names):
            raise InputError(f"{settings.input}: has images whose names differ only in their endings; rename them")
        is_rgb = upscaler.channels == 3
        settings = follow_input(settings, upscaler, _sample(source, frames, is_rgb), str(settings.input))
        identity = fingerprint_of(settings, files=files, network=upscaler.trained.sha256)
        few = [] if upscaler.trained.predicts_error else list(_sample(source, frames, is_rgb))
        for warning in (warn_of_blur(upscaler, few, str(settings.input)),
                        warn_of_noise(upscaler, few, str(settings.input)),
                        warn_of_rounding(upscaler, source.white, str(settings.input))):
            if warning and few:
                print(warning, file=sys.stderr)
        return cls(settings, source, frames, names, identity)

    @property
    def units(self) -> list[range]:
        return [range(frame, frame + 1) for frame in self.frames]

    @property
    def subject(self) -> str:
        first, last = (Path(self.source.names[frame]).name for frame in (self.frames[0], self.frames[-1]))
        return f"{self.settings.input} ({first} to {last})"

    def is_finished(self) -> bool:
        """Return False: the images are looked for one by one."""
        return False

    def begin(self, upscaler: Upscaler) -> Choice:
        """Create the output folder, or check that it is of this upscaling; return the precision it was begun in."""
        folder = self.settings.output
        if not (folder / RECORD).exists():
            if folder.exists() and (not folder.is_dir() or any(path.name[0] != "." for path in folder.iterdir())):
                raise InputError(f"{folder}: exists and is not empty; choose another --output")
            create_folder(folder)
        return join_upscaling(folder / RECORD, self.fingerprint, {}, upscaler,
                              f"{folder}: holds another upscaling; delete it or choose another --output")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of this --part, so that the tasks of a job array can work at the same time.

        Tasks that share the images in another way would write the same ones: they are refused.
        """
        index, count = self.settings.share()
        folder = self.settings.output
        with only_writer(folder, f".lock-{index + 1}-of-{count}"):
            for path in folder.glob(".lock-*-of-*"):
                if not path.name.endswith(f"-of-{count}"):
                    _check_free(path)
            yield

    def missing(self) -> list[int]:
        return [number for number, name in enumerate(self.names) if not (self.settings.output / name).exists()]

    def make(self, numbers: range, upscaler: Upscaler, progress: Progress) -> None:
        frames = self.frames[numbers.start : numbers.stop]
        with contextlib.closing(_enlarge_images(self.source, frames, self.settings, upscaler)) as enlarged:
            for number, image in zip(numbers, enlarged, strict=True):
                _write_image(self.settings.output / self.names[number], image)
                progress.advance()

    def join(self, upscaler: Upscaler) -> bool:
        """Return whether all images are there, also those of other tasks."""
        if missing := len(self.missing()):
            print(f"{self.settings.output}: {len(self.names) - missing} of {len(self.names)} images are there; the "
                  "command without --part makes what is missing", file=sys.stderr)
            return False
        remove_left_together(self.settings.output / RECORD)
        return True


def _check_free(path: Path) -> None:
    """Raise `Held` if a process holds this lock; remove it if a killed one has left it."""
    for waits in (True, False):
        try:
            if path.exists():
                with only_writer(path.parent, path.name):
                    return
        except Held:
            if not waits:
                raise
            time.sleep(CHECK_SECONDS)  # another task may be looking, as this one does


def _output_name(path: Path) -> str:
    return path.name if path.suffix.lower() in LOSSLESS else f"{path.stem}.png"


def _sample(source: ImageSource, frames: range, is_rgb: bool) -> Iterator[np.ndarray]:
    """Yield a few images in grey levels, (C, h, w) as the network sees them."""
    for number in pick_few(frames):
        for image in source.images(number, number + 1):
            rgb = (image[..., :3] / np.float32(source.white)).astype(np.float32)
            yield GREY * (rgb.transpose(2, 0, 1) if is_rgb else _to_ycc(rgb)[None, ..., 0])


def _enlarge_images(source: ImageSource, frames: range, settings: UpscaleSettings, upscaler: Upscaler
                    ) -> Iterator[np.ndarray]:
    """Yield (s H, s W, 3) RGB images, or (s H, s W) if all images are gray, in the type of the input images.

    An image with transparency becomes one of (s H, s W, 4) RGBA. One thread reads ahead, and the upscaler's workers
    compute; closing the iterator ends them.
    """
    peak, scale, is_rgb = source.white, upscaler.scale, upscaler.channels == 3

    def read(image: np.ndarray) -> Frame:
        picture = _Picture((image[..., :3] / np.float32(peak)).astype(np.float32), image[..., 3:])
        seen = picture.rgb.transpose(2, 0, 1) if is_rgb else _to_ycc(picture.rgb)[None, ..., 0]
        return Frame(np.ascontiguousarray(seen * np.float32(GREY)), picture)

    # what the workers make of an enlarged frame: with a network for luma, Lanczos interpolation enlarges chroma
    def finish(enlarged: np.ndarray, frame: Frame) -> np.ndarray:
        if upscaler.trained.predicts_error:
            return to_grey(enlarged)
        if settings.compare:
            show_comparison(enlarged, frame.values)
        rgb = enlarged.transpose(1, 2, 0) / GREY if is_rgb else _with_chroma(enlarged[0], frame.rest.rgb, scale)
        image = np.rint(np.clip(rgb, 0, 1) * peak).astype(source.stored)
        if frame.rest.alpha.shape[2]:
            plane = np.ascontiguousarray(frame.rest.alpha[..., 0])
            return np.dstack([image, enlarge_plane(plane, image.shape[:2], scale)])
        return image[..., 0] if source.is_gray else image

    first, last = max(0, frames.start - CONTEXT), min(source.num_frames, frames.stop + CONTEXT)
    luma_of = (lambda frame: _to_ycc(frame.rest.rgb)[..., 0] * GREY) if settings.find_cuts else None
    made = windows(map(read, source.images(first, last)), first, frames, source.num_frames, luma_of,
                   source.facts.breaks)
    with contextlib.closing(read_ahead(made, READ_AHEAD)) as ahead:
        yield from enlarge_stream(ahead, upscaler, finish)


def _with_chroma(luma: np.ndarray, rgb: np.ndarray, scale: int) -> np.ndarray:
    """Return (s H, s W, 3) RGB, 0..1, of enlarged luma, 0..255, and the chroma of a (H, W, 3) image, 0..1."""
    chroma = [enlarge_plane(np.ascontiguousarray(plane), luma.shape, scale)
              for plane in np.moveaxis(_to_ycc(rgb)[..., 1:], 2, 0)]
    return cv2.cvtColor(np.dstack([luma / np.float32(GREY), *chroma]), cv2.COLOR_YCrCb2RGB)


def _to_ycc(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)


def _write_image(path: Path, image: np.ndarray) -> None:
    if image.ndim == 3 and image.shape[2] == 4 and path.suffix.lower() in TIFF:
        content = encode_with_alpha(image)
    else:
        swapped = image if image.ndim == 2 else cv2.cvtColor(
            image, cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR)
        content = cv2.imencode(path.suffix, swapped)[1].tobytes()
    with write_whole(path) as temporary:
        temporary.write_bytes(content)
