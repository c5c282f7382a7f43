"""Lists the frames of an image file and reads their pixels: a PNG or JPEG file has one, a TIFF file one a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hpc_vsr.media.image_header import TIFF, ImageHeader, damaged, read_header, turn_upright
from hpc_vsr.media.tiff_file import Place, read_page, read_pages
from hpc_vsr.system.errors import InputError


@dataclass(frozen=True)
class ImageFrame:
    """An image, or a page of a TIFF file.

    Attributes
    ----------
    path : Path
    name : str
        Of the file; with the number of the page if there are several.
    header : ImageHeader
    place : Place, optional
        Where the page is.
    """

    path: Path
    name: str
    header: ImageHeader
    place: Place | None = None


def list_frames(path: Path) -> tuple[list[ImageFrame], str]:
    """Return the frames of an image file, and how a TIFF file labels the direction of its pages ("T", "Z", "C", ...).

    Raises
    ------
    InputError
        If it is damaged, or of a kind that is not read.
    """
    with path.open("rb") as stream:
        if stream.read(4) in TIFF:
            pages = read_pages(path)
            digits = len(str(len(pages.headers) - 1))
            names = [f"{path.stem}-{index:0{digits}d}{path.suffix}" for index in range(len(pages.headers))] \
                if len(pages.headers) > 1 else [path.name]
            return [ImageFrame(path, *frame) for frame in zip(names, pages.headers, pages.places, strict=True)], \
                pages.label
        stream.seek(0)
        header = read_header(path, stream)
    if header is None:  # of another format than its name says
        image = _decode(path)
        header = ImageHeader(*image.shape[:2], str(image.dtype), 8 * image.itemsize, image.ndim == 2,
                             image.ndim == 3 and image.shape[2] == 4)
    return [ImageFrame(path, path.name, header)], ""


def read_frame(frame: ImageFrame) -> np.ndarray:
    """Return the pixels of an upright image, as they are stored: (H, W) gray, (H, W, 3) RGB or (H, W, 4) RGBA.

    Gray with transparency becomes RGBA.

    Raises
    ------
    InputError
        If it cannot be read, or is not what its header says.
    """
    header = frame.header
    stored = _decode(frame.path) if frame.place is None else read_page(frame.path, header, frame.place)
    if header.transparent is not None and stored.ndim == 2:
        alpha = np.where(stored == header.transparent, 0, np.iinfo(stored.dtype).max).astype(stored.dtype)
        stored = np.dstack([stored, alpha])
    if stored.ndim == 3 and stored.shape[2] == 2:
        stored = stored[..., [0, 0, 0, 1]]
    found = stored.ndim == 3 and stored.shape[2] == 4
    if (stored.shape[:2], str(stored.dtype)) != ((header.height, header.width), header.dtype):
        raise InputError(f"{frame.path}: is {stored.shape[1]}x{stored.shape[0]} {stored.dtype}, but its header says "
                         f"{header.width}x{header.height} {header.dtype}; it may be damaged")
    if header.has_alpha and not found:
        raise InputError(f"{frame.path}: has transparency that OpenCV does not read in such a file; write it as PNG, "
                         "or without transparency")
    return turn_upright(stored, header.orientation)


def _decode(path: Path) -> np.ndarray:
    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except (OSError, cv2.error) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if image is None:
        raise damaged(path)
    if image.ndim == 2:
        return image
    if image.shape[2] not in (3, 4):
        raise InputError(f"{path}: has {image.shape[2]} channels; it must be gray, RGB or RGBA")
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
