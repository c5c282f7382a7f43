"""Reads the headers of images without their pixels, so that all images of a folder are known before the work begins.

PNG: https://www.w3.org/TR/png-3/ (chunks IHDR, tRNS, acTL, eXIf); JPEG: ITU-T T.81 (markers SOF, APP1); the orientation
is tag 274 of Exif, and of TIFF 6.0, which `hpc_vsr.media.tiff_file` reads.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hpc_vsr.system.errors import InputError

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
GREY_TYPES, ALPHA_TYPES, PALETTE = (0, 4), (4, 6), 3  # colour types of PNG
NOT_FRAMES = (0xC4, 0xC8, 0xCC)  # markers among those of JPEG frames that begin none
ORIENTATION = 274  # the tag in Exif and TIFF
MOST_BYTES = 1 << 16  # of a chunk or segment that is read


@dataclass(frozen=True)
class ImageHeader:
    """What is known of an image before its pixels are decoded.

    Attributes
    ----------
    height, width : int
        As it is stored, before it is turned.
    dtype : str
        Type of the decoded values: uint8, uint16, float32 or one that is refused.
    bits : int
        Bits of a sample that the file declares.
    is_gray, has_alpha : bool
    orientation : int
        1 to 8, as in Exif; 1 is upright.
    min_is_white : bool
        Whether 0 is white.
    transparent : int, optional
        Grey level that is transparent.
    compression : str
        Name of a compression that not every program reads.
    """

    height: int
    width: int
    dtype: str
    bits: int
    is_gray: bool
    has_alpha: bool = False
    orientation: int = 1
    min_is_white: bool = False
    transparent: int | None = None
    compression: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        return (self.width, self.height) if self.orientation > 4 else (self.height, self.width)


def damaged(path: Path) -> InputError:
    """Return the error that says that a file is no whole image."""
    return InputError(f"{path}: cannot be read as an image; it may be truncated")


def read_header(path: Path, stream: BinaryIO) -> ImageHeader | None:
    """Return the header of a PNG or JPEG file, open at its start; None if it is of another format.

    Raises
    ------
    InputError
        If it is damaged, or of a kind that OpenCV would read as something else.
    """
    start = stream.read(len(PNG))
    try:
        if start == PNG:
            return _read_png(path, stream)
        if start.startswith(JPEG):
            stream.seek(2)
            return _read_jpeg(path, stream)
    except (struct.error, IndexError):
        raise damaged(path) from None
    return None


def find_orientation(exif: bytes) -> int:
    """Return the orientation in a block of Exif, 1 to 8; 1 if it does not say."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    with contextlib.suppress(struct.error):
        first, = struct.unpack_from(f"{order}I", exif, 4)
        count, = struct.unpack_from(f"{order}H", exif, first)
        for entry in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, first + 2 + 12 * entry)
            if tag == ORIENTATION:
                return as_orientation(value)
    return 1


def as_orientation(value: object) -> int:
    """Return the value of an orientation's tag; 1 if it is none of 1 to 8."""
    return value if value in range(1, 9) else 1


def turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image (H, W) or (H, W, C) as its orientation in Exif says that it is to be seen."""
    if orientation > 4:
        image = image.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def _read_png(path: Path, stream: BinaryIO) -> ImageHeader:
    length, name = struct.unpack(">I4s", stream.read(8))
    if name != b"IHDR":
        raise damaged(path)
    width, height, bits, kind = struct.unpack(">IIBB", stream.read(length + 4)[:10])
    if 0 in (width, height):
        raise damaged(path)
    is_gray, has_alpha, orientation, transparent = kind in GREY_TYPES, kind in ALPHA_TYPES, 1, None
    while True:
        length, name = struct.unpack(">I4s", stream.read(8))
        if name in (b"IDAT", b"IEND"):
            break
        content = stream.read(length) if name in (b"tRNS", b"acTL", b"eXIf") and length < MOST_BYTES else b""
        stream.seek(length - len(content) + 4, 1)
        if name == b"acTL" and struct.unpack_from(">I", content)[0] > 1:
            raise InputError(f"{path}: is an animated PNG, of which OpenCV reads one frame; write its frames as single "
                             "images")
        if name == b"eXIf":
            orientation = find_orientation(content)
        if name == b"tRNS":
            has_alpha = True
            if is_gray:  # levels of 1, 2 and 4 bits are stretched to 8
                transparent = struct.unpack(">H", content)[0] * (255 // ((1 << bits) - 1) if bits < 8 else 1)
    return ImageHeader(height, width, "uint16" if bits == 16 else "uint8", max(bits, 8), is_gray, has_alpha,
                       orientation, transparent=transparent)


def _read_jpeg(path: Path, stream: BinaryIO) -> ImageHeader:
    orientation = 1
    while True:
        mark, marker = struct.unpack("BB", stream.read(2))
        while marker == 0xFF:  # padding
            marker, = struct.unpack("B", stream.read(1))
        if mark != 0xFF or marker in (0xD9, 0xDA):
            raise damaged(path)
        length = struct.unpack(">H", stream.read(2))[0] - 2
        if 0xC0 <= marker <= 0xCF and marker not in NOT_FRAMES:
            bits, height, width, components = struct.unpack(">BHHB", stream.read(6))
            break
        content = stream.read(length) if marker == 0xE1 else b""
        stream.seek(length - len(content), 1)
        if content.startswith(b"Exif\0\0"):
            orientation = find_orientation(content[6:])
    if components not in (1, 3):
        raise InputError(f"{path}: has {components} colours, as for print (CMYK); convert it to RGB")
    if bits != 8:
        raise InputError(f"{path}: is a JPEG of {bits} bits, which OpenCV does not read; write it as PNG or TIFF")
    return ImageHeader(height, width, "uint8", 8, components == 1, orientation=orientation)
