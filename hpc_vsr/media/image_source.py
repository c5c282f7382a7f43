"""Reads images as frames: those of a folder in the order of the numbers in their names, or the pages of TIFF files."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hpc_vsr.media.clip_files import IMAGES, folders_of_images
from hpc_vsr.media.colour import NAMES, select_channels
from hpc_vsr.media.depth import STORED, Depth, Seen, full_depth
from hpc_vsr.media.image_facts import find_facts, list_few
from hpc_vsr.media.image_file import ImageFrame, list_frames, read_frame
from hpc_vsr.media.order import Order, order_files
from hpc_vsr.media.source import Channels
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import no_folder
from hpc_vsr.system.progress import Progress

STACKS = (".tif", ".tiff")  # files that hold several frames
TYPES = ("uint8", "uint16", "float32")
MOST_CHANNELS = 7  # in the files of a microscope


class ImageSource:
    """Images of one size and type; see `hpc_vsr.media.source.Source`.

    The headers of all images are read when it is opened. 8-bit images stay uint8; deeper ones become float32 grey
    levels, 0 black and 255 white; float32 images stay as they are. Upscaling needs the attributes below and `images`
    too, from every source of the kind "frames".

    Attributes
    ----------
    names : list of str
        Names of the frames, after which their outputs are named.
    stored : np.dtype
        Type of the values of `images`.
    white : int or None
        Stored value of white; None for float images.
    is_gray : bool
        Whether all images are gray.
    """

    def __init__(self, path: Path, channels: Channels, bits: int | None = None):
        order = _list_images(path)
        frames, labels = _list_all_frames(order.paths)
        _check_alike(frames)
        # one image of each kind, so that what cannot be decoded is known now
        for frame in {(frame.path.suffix, frame.header): frame for frame in reversed(frames)}.values():
            self.stored = read_frame(frame).dtype
        self.files = list(dict.fromkeys(frame.path for frame in frames))
        self.channels = NAMES[channels]
        self._channels: Channels = channels
        self._frames = frames
        self.names = [frame.name for frame in frames]
        self.num_frames = len(frames)
        self.height, self.width = frames[0].header.size
        self.dtype = "uint8" if self.stored == np.uint8 else "float32"
        self.is_gray = all(frame.header.is_gray for frame in frames)
        self._depth = _find_depth(frames, self.stored, bits)
        self.white = self._depth and self._depth.white
        self.description = _describe(frames, self.stored, self._depth)
        self.facts = find_facts(frames, labels, order, self._depth, bits is not None)

    def read(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, None]]:
        """Yield the images start..stop-1, each (C, H, W), and None: no value is missing."""
        for image in self.images(start, stop):
            image = image[..., :3]
            if self.stored == np.uint16:
                image = self._depth.to_grey(image)
            yield select_channels(np.ascontiguousarray(image), self._channels), None

    def images(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yield the images start..stop-1 in the stored type, upright, each (H, W, 3) RGB or (H, W, 4) with alpha.

        Black is 0 and white is `white`.
        """
        for frame in self._frames[start:stop]:
            image = read_frame(frame)
            if image.dtype.kind == "f" and not np.isfinite(image).all():
                raise InputError(f"{frame.path}: has NaN or infinite values; use --field for data with gaps")
            image = np.dstack([image] * 3) if image.ndim == 2 else image
            colours = image[..., :3]
            if self.white is not None and self.stored != np.uint8 and colours.max() > self.white:
                raise InputError(f"{frame.path}: has the value {colours.max()}, above the white of {self.white}; give "
                                 "the significant bits of all images with --bits")
            if frame.header.min_is_white:
                colours[:] = self.white - colours
            yield image


def open_images(path: Path, channels: Channels = "y", bits: int | None = None) -> ImageSource:
    """Open a folder of PNG, TIFF or JPEG files, or one TIFF file with pages.

    Raises
    ------
    InputError
        If there are none, a header cannot be read, or they differ in size or depth.
    """
    return ImageSource(path, channels, bits)


def _list_images(path: Path) -> Order:
    if path.is_file() and path.suffix.lower() in STACKS:
        return order_files([path])
    if not path.is_dir():
        raise InputError(f"{no_folder(path)}; --frames takes a folder of images, or one TIFF file")
    paths = [file for file in path.iterdir()
             if file.suffix.lower() in IMAGES and not file.name.startswith(".") and file.is_file()]
    if not paths:
        inside = folders_of_images(path)
        if inside:
            raise InputError(f"{path}: has no images itself, but the folders in it have ({list_few(inside)}); name one "
                             "of them")
        raise InputError(f"{path}: has no images; it must hold files named {', '.join(IMAGES)}")
    order = order_files(paths)
    stems: dict[str, Path] = {}
    for file in order.paths:
        if (other := stems.setdefault(file.stem, file)) is not file:
            raise InputError(f"{path}: has {other.name} and {file.name}, whose names differ only in their endings; "
                             "each frame must be there once")
    return order


def _list_all_frames(paths: Sequence[Path]) -> tuple[list[ImageFrame], list[str]]:
    """Return the frames of all files, and how each file labels the direction of its pages."""
    frames, labels, same = [], [], {}
    for path in paths:
        found, label = list_frames(path)
        labels.append(label)
        # headers that are equal are one object, so that a million of them take little memory
        frames += [dataclasses.replace(frame, header=same.setdefault(frame.header, frame.header)) for frame in found]
        if len(paths) > 1 and label == "C" and len(found) <= MOST_CHANNELS:
            raise InputError(f"{path}: has {len(found)} channels on pages of their own, which are no frames; write the "
                             "images of one channel into a folder of their own")
    return frames, labels


def _check_alike(frames: Sequence[ImageFrame]) -> None:
    """Raise `InputError` unless all images have one size and a type that is read."""
    first = frames[0].header
    for frame in frames:
        header = frame.header
        if header.dtype not in TYPES:
            raise InputError(f"{frame.path}: has {header.dtype} pixels; they must be 8 bit, 16 bit or float32")
        if (header.size, header.dtype, header.bits) != (first.size, first.dtype, first.bits):
            page = f" (page {frame.name})" if frame.name != frame.path.name else ""
            raise InputError(f"{frame.path}{page}: is {_text(header)}, but the first image is {_text(first)}; all "
                             "images must be alike")


def _text(header) -> str:
    height, width = header.size
    bits = f" of {header.bits} bits" if header.bits not in (8, 16, 32) else ""
    return f"{width}x{height} {header.dtype}{bits}"


def _find_depth(frames: Sequence[ImageFrame], stored: np.dtype, bits: int | None) -> Depth | None:
    """Return the significant bits and white of the images; None if they are float.

    If neither `bits` nor the headers tell, all images are looked at until one shows that all 16 bits are used.
    """
    declared = frames[0].header.bits
    if bits is not None and stored != np.uint16:
        raise InputError(f"--bits {bits}: is for images of more than 8 bits, and {frames[0].path} has {stored} pixels; "
                         "leave it out")
    if bits is not None and not 8 <= bits <= declared:
        raise InputError(f"--bits {bits}: {frames[0].path} has {declared} bits; give 8 to {declared}")
    if stored != np.uint16:
        return full_depth(8) if stored == np.uint8 else None
    if bits is not None or declared < STORED:
        return full_depth(bits or declared)
    seen = Seen()
    with Progress(len(frames), "looking for the significant bits", "image") as progress:
        for frame in frames:
            image = read_frame(frame)
            seen = seen.with_values(image if image.ndim == 2 else image[..., :3])
            if seen.is_settled:
                return full_depth(STORED)
            progress.advance()
    return seen.depth


def _describe(frames: Sequence[ImageFrame], stored: np.dtype, depth: Depth | None) -> dict:
    description = {"image_type": str(stored), "first": frames[0].path.name, "last": frames[-1].path.name}
    if stored == np.uint16:
        description.update(white=depth.white, bits=depth.bits)
    # what earlier versions read otherwise, so that their data sets are not taken for these
    if turned := collections.Counter(frame.header.orientation for frame in frames
                                     if frame.header.orientation > 1 and frame.place is None):
        description["orientation"] = ", ".join(f"{count} of {kind}" for kind, count in sorted(turned.items()))
    if stored == np.uint8 and any(frame.header.has_alpha and not frame.header.is_gray and frame.place
                                  for frame in frames):
        description["transparency"] = "left out"
    return description
