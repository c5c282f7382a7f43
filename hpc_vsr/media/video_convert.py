"""Converts frames of a video between pixel formats with swscale, exactly."""

from __future__ import annotations

from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation

# swscale's default conversion darkens Y by 1.4 grey levels on average, these flags by 0.01: docs/decisions.md
EXACT = (Interpolation.BICUBIC | Interpolation.ACCURATE_RND
         | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP)
MATRICES = {1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.ITU601,
            7: Colorspace.SMPTE240M, 9: Colorspace.BT2020}  # ISO/IEC 23091-2 code to libswscale's
UNTAGGED_MATRIX, RGB_MATRIX = 2, 0
FULL_RANGE = 2


def is_full_range(frame: VideoFrame) -> bool:
    """Return whether black is code 0 and white the largest code."""
    name = frame.format.name
    return (int(frame.color_range) == FULL_RANGE or frame.format.is_rgb
            or name.startswith(("yuvj", "gray", "pal8", "mono")) and int(frame.color_range) != 1)


def reformat(frame: VideoFrame, name: str, colour_range: ColorRange) -> VideoFrame:
    """Return a frame in another pixel format, with its own colour matrix."""
    matrix = MATRICES.get(int(frame.colorspace), Colorspace.ITU601)
    return frame.reformat(
        format=name, interpolation=EXACT, threads=1, src_colorspace=matrix, dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG if is_full_range(frame) else ColorRange.MPEG, dst_color_range=colour_range)
