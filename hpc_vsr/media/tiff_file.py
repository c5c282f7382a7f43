"""Reads TIFF files page by page: every page is a frame, also those of ImageJ that only its comment counts.

tifffile reads the headers. Values that lie in the file as they are are taken from there; OpenCV decodes compressed
ones, from a view of the file in which that page is the first and its values are not interpreted: OpenCV turns pages by
their orientation, inverts those with white 0 if they have 8 bits and not if they have 16, and multiplies colours by
their transparency, each without a word.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import tifffile

from hpc_vsr.media.image_header import ORIENTATION, ImageHeader, as_orientation, damaged
from hpc_vsr.system.errors import InputError

PHOTOMETRIC, EXTRA_SAMPLES = 262, 338  # tags
WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
SEPARATE = 2  # planes
REDUCED, MASK = 1, 4  # bits of a page's kind
PLANE = "YXS"
AXES = {"T": "times", "Z": "slices in depth", "C": "channels"}


@dataclass(frozen=True)
class Place:
    """Where the values of a page are.

    Attributes
    ----------
    offset : int
        Of the values if they lie in the file as they are, else of the page's directory.
    shape : tuple of int
        Of the values in the file; empty if they are compressed.
    dtype : str
        Type with the order of its bytes.
    changes : tuple of (int, bytes)
        What is to be changed in a view of the file before OpenCV decodes this page.
    """

    offset: int
    shape: tuple[int, ...] = ()
    dtype: str = ""
    changes: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True)
class Pages:
    """The pages of a TIFF file: their headers and places, and how the file labels them ("T", "Z", ...; "" if not)."""

    headers: list[ImageHeader]
    places: list[Place]
    label: str = ""


def read_pages(path: Path) -> Pages:
    """Read the headers of all pages that are images of full size.

    Raises
    ------
    InputError
        If the file is damaged, its pages are of a kind that is not read, or they go in two directions, such as time and
        depth.
    """
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        # the files of an OME set are read one by one
        with tifffile.TiffFile(path, _multifile=False) as file:
            return _read_pages(path, file)
    except (InputError, OSError):
        raise
    except Exception as error:  # a damaged file fails in many ways inside tifffile
        raise InputError(f"{path}: cannot be read as an image; it may be truncated "
                         f"({type(error).__name__}: {error})".splitlines()[0]) from None


def read_page(path: Path, header: ImageHeader, place: Place) -> np.ndarray:
    """Return the values of a page as they are stored, (H, W) or (H, W, samples) with red first."""
    if place.shape:
        count = math.prod(place.shape)
        values = np.fromfile(path, place.dtype, count, offset=place.offset)
        if len(values) < count:
            raise damaged(path)
        values = values.reshape(place.shape).astype(header.dtype, copy=False)
        return np.moveaxis(values, 0, -1) if values.ndim == 3 and place.shape[1:] == (header.height, header.width) \
            else values
    view = np.memmap(path, np.uint8, "c")  # changes stay in memory
    for offset, content in place.changes:
        view[offset : offset + len(content)] = np.frombuffer(content, np.uint8)
    try:
        image = cv2.imdecode(view, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        reason = f"; OpenCV may not read {header.compression} of {header.bits} bits, so write it without compression"
        raise InputError(f"{path}: cannot be read as an image; it may be truncated{reason * bool(header.compression)}")
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    if image.dtype == np.uint16 and header.bits < 16 and not (image & (1 << 16 - header.bits) - 1).any():
        image >>= 16 - header.bits  # OpenCV moves 10, 12 and 14 bits to the top
    return image


def encode_with_alpha(image: np.ndarray) -> bytes:
    """Return an RGBA image (H, W, 4) as a TIFF file whose transparency is declared, which OpenCV does not do."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, photometric="rgb", extrasamples=["unassalpha"], compression="zlib", metadata=None,
                     software=False)
    return buffer.getvalue()


def _read_pages(path: Path, file: tifffile.TiffFile) -> Pages:
    pages = [page for page in file.pages if not page.subfiletype & (REDUCED | MASK)]
    if not pages:
        raise damaged(path)
    label = _label_of(path, file, len(pages)) if len(file.pages) > 1 or file.is_imagej or file.is_ome else ""
    headers = [_header_of(path, page) for page in pages]
    places = [_place_of(file, page, header) for page, header in zip(pages, headers, strict=True)]
    count = _counted_by_imagej(file)
    if len(pages) == 1 < count:
        headers, places = headers * count, list(_following(path, places[0], count))
    return Pages(headers, places, label)


def _header_of(path: Path, page: tifffile.TiffPage) -> ImageHeader:
    kind, samples, name = int(page.photometric), page.samplesperpixel, getattr(page.photometric, "name", "")
    if kind not in (WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, YCBCR):
        raise InputError(f"{path}: has pixels of the kind {name or kind}; convert it to gray or RGB")
    if samples not in (1, 2, 3, 4) or page.imagedepth != 1:
        raise InputError(f"{path}: has {samples} channels; it must be gray, RGB or RGBA")
    if page.dtype is None or page.bitspersample not in (1, 8, 10, 12, 14, 16, 32, 64) \
            and not (page.bitspersample in (2, 4) and kind == PALETTE):
        raise InputError(f"{path}: has samples of {page.bitspersample} bits; they must be 8 bit, 16 bit or float32")
    dtype = "uint8" if page.bitspersample < 8 else page.dtype.name
    min_is_white = kind == WHITE_IS_0
    if min_is_white and page.dtype.kind == "f":
        raise InputError(f"{path}: has float values and says that the least one is white; write them with the least "
                         "one as black")
    if page.planarconfig == SEPARATE and samples > 1 and page.bitspersample > 8 and not _is_plain(page):
        raise InputError(f"{path}: has compressed colours one behind the other, which OpenCV mixes up; write it "
                         "without compression, or as PNG")
    orientation = page.tags.get(ORIENTATION)
    compression = "" if page.compression == 1 else getattr(page.compression, "name", str(page.compression))
    return ImageHeader(page.imagelength, page.imagewidth, dtype, max(page.bitspersample, 8),
                       samples < 3 and kind != PALETTE, samples in (2, 4),
                       as_orientation(orientation.value if orientation else 1), min_is_white,
                       compression=compression)


def _is_plain(page: tifffile.TiffPage) -> bool:
    """Return whether the values lie in the file as they are, without a gap."""
    return (page.is_contiguous and page.fillorder == 1 and page.bitspersample in (8, 16, 32)
            and int(page.photometric) not in (PALETTE, YCBCR))


def _place_of(file: tifffile.TiffFile, page: tifffile.TiffPage, header: ImageHeader) -> Place:
    if _is_plain(page):
        return Place(page.dataoffsets[0], page.shape, page.dtype.newbyteorder(file.byteorder).str)
    order = "little" if file.byteorder == "<" else "big"
    changes = [(8, page.offset.to_bytes(8, order)) if file.is_bigtiff else (4, page.offset.to_bytes(4, order))]
    for number, value, wanted in ((PHOTOMETRIC, BLACK_IS_0, header.min_is_white), (ORIENTATION, 1, True),
                                  (EXTRA_SAMPLES, 1, True)):
        tag = page.tags.get(number)
        if wanted and tag is not None and tag.count == 1:
            changes.append((tag.valueoffset, value.to_bytes(2, order)))
    return Place(page.offset, changes=tuple(changes))


def _label_of(path: Path, file: tifffile.TiffFile, num_pages: int) -> str:
    """Return the letter of the direction in which the pages follow each other; refuse them if there are two."""
    series = [item for item in file.series if not item.keyframe.subfiletype & (REDUCED | MASK)]
    if len(series) != 1:
        return ""  # their sizes tell whether they belong together
    extents = {axis: size for axis, size in zip(series[0].axes, series[0].shape, strict=True)
               if axis not in PLANE and size > 1}
    if len(extents) > 1:
        found = ", ".join(f"{size} {AXES.get(axis, axis)}" for axis, size in extents.items())
        raise InputError(f"{path}: has pages in more than one direction ({found}); write those of one direction, such "
                         "as the times of one channel, into a file of their own")
    return next(iter(extents), "")


def _counted_by_imagej(file: tifffile.TiffFile) -> int:
    """Return the number of images that ImageJ's comment counts; it writes those above 4 GB without a directory."""
    return int((file.imagej_metadata or {}).get("images", 1)) if file.is_imagej else 1


def _following(path: Path, first: Place, count: int) -> Iterator[Place]:
    """Yield the places of images that lie behind each other."""
    if not first.shape:
        raise InputError(f"{path}: promises {count} images and holds one; it may be truncated")
    size = math.prod(first.shape) * np.dtype(first.dtype).itemsize
    if first.offset + count * size > path.stat().st_size:
        raise InputError(f"{path}: promises {count} images, but ends before them; it is truncated")
    for index in range(count):
        yield replace(first, offset=first.offset + index * size)
