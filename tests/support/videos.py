"""Videos encoded for a test."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np


def write_video(path: Path, frames: np.ndarray, codec="libx264", pixel_format="yuv420p", gop=12, b_frames=2,
                colour_range=None, matrix=None) -> Path:
    """Encode (T, H, W, 3) uint8 frames."""
    import av  # a machine without it still runs the tests that decode nothing

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixel_format
        stream.time_base = Fraction(1, 25)
        if codec == "libx264":
            stream.options = {"g": str(gop), "bf": str(b_frames), "crf": "18", "threads": "1"}
        for index, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame = frame.reformat(format=pixel_format, dst_color_range=colour_range, dst_colorspace=matrix)
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
