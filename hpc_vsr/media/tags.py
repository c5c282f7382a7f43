"""Reads the metadata of a video that describe its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

Codec = Literal["auto", "h264", "hevc", "av1", "prores", "ffv1"]


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


def read_tags(stream: Any, frame: Any, full_range: bool) -> VideoTags:
    """Return the tags of a decoder's stream and its first frame."""
    return VideoTags(
        stream.codec_context.name, frame.format.name.replace("yuvj", "yuv"),
        max(component.bits for component in frame.format.components), frame.format.is_rgb, full_range,
        bool(frame.interlaced_frame), int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc),
        frame.rotation, stream.time_base, stream.average_rate or Fraction(25), stream.sample_aspect_ratio)
