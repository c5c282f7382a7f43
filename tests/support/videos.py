"""Videos encoded for a test."""

from __future__ import annotations

import struct
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


def write_planes(path: Path, planes: list[list[np.ndarray]], pixel_format: str, matrix=None, full_range=False,
                 times=None) -> Path:
    """Write planes of codes with FFV1, which loses nothing; `times` are in ms."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *planes[0][0].shape, pixel_format
        stream.codec_context.time_base = stream.time_base = Fraction(1, TICKS)
        stream.codec_context.color_range = 2 if full_range else 1
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        for index, picture in enumerate(planes):
            frame = av.VideoFrame(stream.width, stream.height, pixel_format)
            for target, plane in zip(frame.planes, picture, strict=True):
                rows = np.frombuffer(target, plane.dtype).reshape(target.height, -1)
                rows[:, : target.width * (plane.shape[1] // target.width)] = plane
            frame.color_range = 2 if full_range else 1
            if matrix is not None:
                frame.colorspace = matrix
            frame.pts, frame.time_base = 40 * index if times is None else times[index], Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_avi(path: Path, chunks: list[bytes], fourcc: bytes, size: tuple[int, int], bits: int = 8,
              announced: int | None = None) -> Path:
    """Write an AVI chunk by chunk, at 25 frames a second; an empty chunk is a dropped frame."""
    height, width = size
    count = len(chunks) if announced is None else announced
    body = index = b""
    for chunk in chunks:
        index += b"00db" + struct.pack("<III", 16 if chunk else 0, 4 + len(body), len(chunk))
        body += b"00db" + struct.pack("<I", len(chunk)) + chunk + b"\0" * (len(chunk) % 2)

    def block(tag: bytes, content: bytes) -> bytes:
        return tag + struct.pack("<I", len(content)) + content

    main = struct.pack("<14I", 40000, 0, 0, 16, count, 0, 1, 1 << 20, width, height, 0, 0, 0, 0)
    stream = b"vids" + fourcc + struct.pack("<IHHIIIIIIIIHHHH", 0, 0, 0, 0, 1, 25, 0, count, 1 << 20, 2**32 - 1, 0,
                                            0, 0, width, height)
    form = struct.pack("<IiiHH4sIIIII", 40, width, height, 1, bits, fourcc, width * height, 0, 0, 0, 0)
    streams = block(b"LIST", b"strl" + block(b"strh", stream) + block(b"strf", form))
    header = block(b"LIST", b"hdrl" + block(b"avih", main) + streams)
    path.write_bytes(block(b"RIFF", b"AVI " + header + block(b"LIST", b"movi" + body) + block(b"idx1", index)))
    return path


def copy_packets(source: Path, target: Path, change=lambda number, packet: packet, time_base=None) -> Path:
    """Copy the packets of a video without decoding; `change` returns a packet, or None to leave it out."""
    import av

    with av.open(str(source)) as original, av.open(str(target), "w") as copy:
        stream = copy.add_stream_from_template(original.streams.video[0])
        if time_base is not None:
            stream.time_base = time_base
        for number, packet in enumerate(packet for packet in original.demux(video=0) if packet.size):
            kept = change(number, packet)
            if kept is not None:
                kept.stream = stream
                copy.mux(kept)
    return target
