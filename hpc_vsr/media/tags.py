"""Reads the metadata of a video that describe its pictures."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

Codec = Literal["auto", "h264", "hevc", "av1", "prores", "ffv1"]


# metadata of a frame that only its own encoder can write
LOST = {"A53_CC": "closed captions", "DYNAMIC_HDR_PLUS": "HDR10+ metadata", "DYNAMIC_HDR_VIVID": "HDR Vivid metadata",
        "DOVI_RPU_BUFFER": "Dolby Vision metadata", "DOVI_METADATA": "Dolby Vision metadata",
        "STEREO3D": "the arrangement of a stereo picture", "SPHERICAL": "the projection of a spherical picture",
        "ICC_PROFILE": "a colour profile", "S12M_TIMECODE": "time codes"}


@dataclass(frozen=True)
class HdrTags:
    """Static metadata of HDR10 (SMPTE ST 2086 and CTA-861.3).

    Attributes
    ----------
    display : tuple of 10 Fraction, optional
        x and y of the red, green and blue primaries and of white, then lowest and highest luminance in cd/m2.
    light : (int, int), optional
        Highest light level of a pixel, and highest average of a frame, in cd/m2.
    """

    display: tuple[Fraction, ...] | None = None
    light: tuple[int, int] | None = None

    def __bool__(self) -> bool:
        return self.display is not None or self.light is not None


@dataclass(frozen=True)
class VideoTags:
    """Metadata that a copy of a video at another size must keep. Numbers are codes of ISO/IEC 23091-2.

    Attributes
    ----------
    codec, pixel_format : str
    depth : int
        Bits per component.
    is_rgb, full_range, interlaced : bool
    matrix, primaries, transfer : int
    rotation : int
        Degrees, counter-clockwise, by which a player turns the frames.
    time_base, rate : Fraction
        Seconds per unit of time, and average frames per second.
    pixel_aspect : Fraction or None
        Width of a pixel divided by its height.
    hdr : HdrTags
        For which display the colours were made.
    has_alpha : bool
        Whether a pixel has an opacity.
    lost : tuple of str
        Further metadata that the first frame has and a copy does not keep, in words.
    """

    codec: str
    pixel_format: str
    depth: int
    is_rgb: bool
    full_range: bool
    interlaced: bool
    matrix: int
    primaries: int
    transfer: int
    rotation: int
    time_base: Fraction
    rate: Fraction
    pixel_aspect: Fraction | None
    hdr: HdrTags = HdrTags()
    has_alpha: bool = False
    lost: tuple[str, ...] = ()


def read_tags(stream: Any, frame: Any, full_range: bool) -> VideoTags:
    """Return the tags of a decoder's stream and its first frame."""
    return VideoTags(
        stream.codec_context.name, frame.format.name.replace("yuvj", "yuv"),
        max(component.bits for component in frame.format.components), frame.format.is_rgb, full_range,
        bool(frame.interlaced_frame), int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc),
        frame.rotation, stream.time_base, stream.average_rate or Fraction(25), stream.sample_aspect_ratio,
        _read_hdr(frame), any(component.is_alpha for component in frame.format.components),
        tuple(dict.fromkeys(LOST[data.type.name] for data in frame.side_data if data.type.name in LOST)))


def _read_hdr(frame: Any) -> HdrTags:
    """Read FFmpeg's AVMasteringDisplayMetadata (20 numbers, two flags) and AVContentLightMetadata (two numbers)."""
    found = {data.type.name: bytes(data) for data in frame.side_data}
    display, light = found.get("MASTERING_DISPLAY_METADATA", b""), found.get("CONTENT_LIGHT_LEVEL", b"")
    numbers = struct.unpack_from("=22i", display) if len(display) >= 88 else (0,) * 22
    is_whole = all(numbers[20:]) and all(numbers[1:20:2])
    return HdrTags(tuple(Fraction(*numbers[at : at + 2]) for at in range(0, 20, 2)) if is_whole else None,
                   struct.unpack_from("=2I", light) if len(light) >= 8 else None)
