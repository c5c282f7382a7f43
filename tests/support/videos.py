"""Videos encoded for a test."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from patterns import moving_pattern

TICKS = 1000  # of a second
TIMES = [0, 40, 80, 110, 160, 201, 240, 280, 333, 360, 400, 441]  # ms: a variable rate


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


def write_rich(path: Path, pixel_format: str, size: tuple[int, int] = (48, 64), codec: str = "libx264") -> None:
    """Encode 12 frames at a variable rate, BT.709, turned, with a title, sound, a subtitle and a chapter."""
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=25)
        video.height, video.width, video.pix_fmt = *size, pixel_format
        video.options = {"bf": "2", "crf": "10", "threads": "1"} if codec == "libx264" else {}
        video.codec_context.time_base = video.time_base = Fraction(1, TICKS)
        video.codec_context.colorspace = video.codec_context.color_primaries = video.codec_context.color_trc = 1
        video.codec_context.color_range = 1
        video.set_display_rotation(90)
        video.metadata["title"] = "top view"
        sound = container.add_stream("aac", rate=48000, layout="mono")
        subtitle = container.add_mux_stream("subrip")
        container.metadata["title"] = "A diamond"
        container.set_chapters([{"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, TICKS),
                                 "metadata": {"title": "first"}}])
        for index, rgb in enumerate(moving_pattern(12, *size)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
                format=pixel_format, dst_colorspace=1, dst_color_range=1)
            frame.pts, frame.time_base = TIMES[index], Fraction(1, TICKS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for index in range(22):
            wave = np.sin(np.arange(1024) / 20 + index).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, 1024 * index
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
        packet = av.Packet(b"Hello")
        packet.pts = packet.dts = 100
        packet.duration, packet.time_base, packet.stream = 150, Fraction(1, TICKS), subtitle
        container.mux(packet)
