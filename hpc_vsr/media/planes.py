"""Describes the pictures of a video as they are coded: planes of luma and chroma, in any depth and subsampling."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

PLANAR = re.compile(r"(?:gray|yuv(?P<alpha>a)?j?(?P<chroma>4\d\d)p)(?P<bits>9|10|12|14|16)?(?:le)?")
SUBSAMPLING = {None: (1, 1), "410": (4, 4), "411": (1, 4), "420": (2, 2), "422": (1, 2), "440": (2, 1), "444": (1, 1)}
GREY = 255.0  # white in the values that a network for videos sees
BLACK, EXTENT, CHROMA_EXTENT = 16, 219, 224  # 8-bit luma and chroma in limited range


@dataclass(frozen=True)
class PlaneFormat:
    """Format in which luma and chroma are coded.

    Attributes
    ----------
    name : str
        FFmpeg's name for the pixel format.
    bits : int
    rows, columns : int
        Luma pixels per chroma pixel.
    full_range : bool
        Whether black is code 0 and white the largest code.
    has_alpha : bool
        Whether a fourth plane holds the opacity.
    white : int, optional
        Code of white, if only a part of the bits is used: 4095 for 12 bits in 16.
    """

    name: str
    bits: int
    rows: int
    columns: int
    full_range: bool
    has_alpha: bool = False
    white: int | None = None

    @property
    def dtype(self) -> type:
        return np.uint8 if self.bits == 8 else np.uint16

    @property
    def largest(self) -> int:
        return (1 << self.bits) - 1

    @property
    def black(self) -> int:
        return 0 if self.full_range else BLACK << (self.bits - 8)

    @property
    def extent(self) -> int:
        """Number of codes from black to white."""
        if self.white is not None:
            return self.white - self.black
        return self.largest if self.full_range else EXTENT << (self.bits - 8)

    @property
    def grey_chroma(self) -> int:
        """Code of chroma without colour."""
        return 1 << (self.bits - 1)

    @property
    def chroma_extent(self) -> int:
        """Number of codes from the lowest to the highest chroma."""
        return self.largest if self.full_range else CHROMA_EXTENT << (self.bits - 8)

    @property
    def whole(self) -> PlaneFormat:
        """The same format with chroma of full size and without opacity."""
        name = re.sub(r"yuva?4\d\dp", "yuv444p", self.name)
        return dataclasses.replace(self, name=name, rows=1, columns=1, has_alpha=False)

    def to_grey(self, luma: np.ndarray) -> np.ndarray:
        """Convert coded luma to float32 grey levels, 0 black and 255 white."""
        return (luma.astype(np.float32) - self.black) * np.float32(GREY / self.extent)

    def to_code(self, grey: np.ndarray, like: np.ndarray) -> np.ndarray:
        """Convert grey levels to coded luma, rounded.

        Values stay between black and white, or within the range of `like` (coded) where that is wider.
        """
        low, high = min(self.black, int(like.min())), max(self.black + self.extent, int(like.max()))
        return np.rint(np.clip(grey * np.float32(self.extent / GREY) + self.black, low, high)).astype(self.dtype)


def find_format(name: str, full_range: bool) -> PlaneFormat | None:
    """Return the planes of FFmpeg's pixel format `name`; None if its planes are not luma and chroma."""
    match = PLANAR.fullmatch(name)
    if match is None:
        return None
    rows, columns = SUBSAMPLING[match["chroma"]]
    return PlaneFormat(name.replace("yuvj", "yuv"), int(match["bits"] or 8), rows, columns, full_range,
                       bool(match["alpha"]))


def nearest_format(name: str, depth: int, is_rgb: bool, has_alpha: bool = False) -> str:
    """Return the planar format that can hold `name` (packed, RGB or palette), with transparency if `has_alpha`."""
    if name.startswith(("gray", "ya")) and not has_alpha and not name.startswith("yuv"):
        return f"gray{'' if depth <= 8 else '10le' if depth <= 10 else '12le' if depth <= 12 else '16le'}"
    subsampling = "444"
    if not is_rgb:
        found = re.search(r"4\d\d", name)
        subsampling = found[0] if found else "420" if name.startswith(("nv", "p01")) else "444"
        subsampling = {"nv16": "422", "nv24": "444", "nv42": "444"}.get(name, subsampling)
    bits = "" if depth <= 8 else "10le" if depth <= 10 else "12le" if depth <= 12 else "16le"
    return f"yuv{'a' * has_alpha}{subsampling}p{bits}"


def without_alpha(name: str) -> str:
    """Return the planar format `name` without its plane of opacity."""
    return name.replace("yuva", "yuv")


def read_plane(plane: Any, dtype: type) -> np.ndarray:
    """Return a decoder's plane as (H, W), without its padding; a view that lives as long as its frame."""
    return np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width]
