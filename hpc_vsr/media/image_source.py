"""Reads a folder of images as frames, in natural order (frame2 before frame10)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from hpc_vsr.media.colour import NAMES, select_channels
from hpc_vsr.media.order import natural_order
from hpc_vsr.media.reading import Facts
from hpc_vsr.media.source import Channels
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import no_folder

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")


class ImageSource:
    """A folder with one image per frame; see `hpc_vsr.media.source.Source`.

    8-bit images stay uint8, others become float32. Upscaling needs the attributes below and `images` too, from every
    source of the kind "frames".

    Attributes
    ----------
    names : list of str
        Names of the images, after which their outputs are named.
    stored : np.dtype
        Type of the values of `images`.
    is_gray : bool
    """

    def __init__(self, folder: Path, channels: Channels):
        self.files = _list_images(folder)
        self.channels = NAMES[channels]
        self._channels: Channels = channels
        first = _read_image(self.files[0])
        self._shape, self.stored = first.shape, first.dtype
        self.is_gray = _decode(self.files[0]).ndim == 2
        self.names = [path.name for path in self.files]
        self.num_frames = len(self.files)
        self.height, self.width = first.shape[:2]
        self.dtype = "uint8" if first.dtype == np.uint8 else "float32"
        self.description = {"image_type": str(first.dtype), "first": self.files[0].name, "last": self.files[-1].name}
        self.facts = Facts()

    def read(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, None]]:
        """Yield the images start..stop-1, each (C, H, W), and None: no value is missing."""
        for image in self.images(start, stop):
            yield select_channels(image.astype(self.dtype, copy=False), self._channels), None

    def images(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yield the images start..stop-1 as they are stored, each (H, W, 3) RGB."""
        for path in self.files[start:stop]:
            image = _read_image(path)
            if (image.shape, image.dtype) != (self._shape, self.stored):
                raise InputError(f"{path}: is {_shape_text(image.shape)} {image.dtype}, but the first image is "
                                 f"{_shape_text(self._shape)} {self.stored}; all images must be alike")
            if image.dtype.kind == "f" and not np.isfinite(image).all():
                raise InputError(f"{path}: has NaN or infinite values; use --field for data with gaps")
            yield image


def open_images(folder: Path, channels: Channels = "y", bits: int | None = None) -> ImageSource:
    """Open a folder of PNG, TIFF or JPEG files; `InputError` if it has none or the first cannot be read."""
    return ImageSource(folder, channels)


def _list_images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{no_folder(folder)}; --frames takes a folder of images")
    paths = [path for path in folder.iterdir()
             if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()]
    if not paths:
        raise InputError(f"{folder}: has no images; it must hold files named {', '.join(SUFFIXES)}")
    return natural_order(paths)


def _decode(path: Path) -> np.ndarray:
    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except (OSError, cv2.error) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if image is None:
        raise InputError(f"{path}: cannot be read as an image; it may be truncated")
    return image


def _read_image(path: Path) -> np.ndarray:
    """Read an image as (H, W, 3) RGB, uint8, uint16 or float32; gray is repeated, transparency is dropped."""
    image = _decode(path)
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise InputError(f"{path}: has {image.dtype} pixels; they must be 8 bit, 16 bit or float32")
    if image.ndim == 3 and image.shape[2] not in (3, 4):
        raise InputError(f"{path}: has {image.shape[2]} channels; it must be gray, RGB or RGBA")
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
