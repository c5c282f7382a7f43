"""Describes the pictures of a video by its first frame, or by a few, and says what a user should know of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hpc_vsr.media.video_convert import MATRICES, RGB_MATRIX, UNTAGGED_MATRIX, is_full_range

UNKNOWN_MATRIX = 6  # BT.601 is taken for it
HDR_CURVES = {16: "PQ", 18: "HLG"}  # transfer characteristics, ISO/IEC 23091-2


def describe(stream: Any, frame: Any) -> dict:
    """Return the facts about a video that are in its description."""
    matrix = int(frame.colorspace)
    return {
        "codec": stream.codec_context.name,
        "pixel_format": frame.format.name,
        "frames_per_second": str(stream.average_rate),
        "colour_matrix": "RGB" if frame.format.is_rgb or matrix == RGB_MATRIX
                         else MATRICES.get(matrix, MATRICES[UNKNOWN_MATRIX]).name
                         + (" (not tagged)" if matrix == UNTAGGED_MATRIX else ""),
        "colour_range": "full" if is_full_range(frame) else "limited",
    }


def warn_of(path: Path, stream: Any, frame: Any, others: list[str], few: Iterable[Any]) -> list[str]:
    """Return what the user should know of the first frame, of a few of all, and of what is beside the video."""
    warnings, matrix = [], int(frame.colorspace)
    if others:
        warnings.append(f"{path}: has several videos; stream {stream.index} ({frame.width}x{frame.height}) is read, "
                        f"and not {', '.join(others)}")
    if matrix not in (*MATRICES, UNTAGGED_MATRIX, RGB_MATRIX) and not frame.format.is_rgb:
        warnings.append(f"{path}: its colour matrix (code {matrix} of ISO/IEC 23091-2) is not known here, and its "
                        "colours are read as those of BT.601")
    if frame.interlaced_frame:
        warnings.append(f"{path}: is interlaced, and a network sharpens its combs; deinterlace it first, such as with "
                        f"'ffmpeg -i {path.name} -vf bwdif ...'")
    if "alpha_mode" in {key.lower() for key in stream.metadata} and not frame.format.name.startswith("yuva"):
        warnings.append(f"{path}: has transparency in a second layer, which is not read")
    elif any(component.is_alpha for component in frame.format.components) and any(map(_lets_through, few)):
        warnings.append(f"{path}: has transparency; its colours are taken as they are stored, also where they are "
                        "not seen")
    if int(frame.color_trc) in HDR_CURVES:
        warnings.append(f"{path}: its values are coded for HDR ({HDR_CURVES[int(frame.color_trc)]}); they are taken as "
                        "they are, and a network that was trained on other videos may not suit them")
    return warnings


def _lets_through(frame: Any) -> bool:
    """Check whether some pixel of a frame is not opaque."""
    return bool((frame.reformat(format="rgba").to_ndarray()[..., 3] < 255).any())
