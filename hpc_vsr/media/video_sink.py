"""Encodes segments of a video with PyAV.

A segment is a file with the packets of a run of frames; its time stamps give only the order of the frames.
`hpc_vsr.media.video_join` joins segments.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from hpc_vsr.media import colour
from hpc_vsr.media.planes import GREY, PlaneFormat, find_format, read_plane
from hpc_vsr.media.tags import Codec, VideoTags
from hpc_vsr.media.video_convert import EXACT, MATRICES
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import write_whole
from hpc_vsr.system.scheduling import kept_scheduling

ENCODERS = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "prores": "prores_ks", "ffv1": "ffv1"}
# constant rate factors at which a loss is hard to see; prores has its own quality, and ffv1 loses nothing
QUALITY = {"h264": 16, "hevc": 18, "av1": 20}
WHOLE_CHROMA = ("h264", "hevc")  # these refuse a size that cuts a chroma pixel
PARAMETERS = {"h264": "x264-params", "hevc": "x265-params", "av1": "svtav1-params"}  # options of the encoder's own
ALWAYS = {"hevc": ["log-level=error"]}
WITHOUT_AVX512 = ["asm=avx2"]
WITH_ALPHA = ("prores", "ffv1")  # of hevc, few decoders read the layer that holds it
MUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".m4v": "mp4"}
# containers for what the codec itself does not hold, such as the colours of ffv1
SEGMENT_SUFFIX = {"prores": ".mov", "ffv1": ".mkv"}
NUM_THREADS = 4  # of the encoder, the same everywhere because its bytes depend on it
GLOBAL_HEADER = 1 << 22


@dataclass(frozen=True)
class Encoding:
    """Settings with which a video is written.

    Attributes
    ----------
    codec : str
        A key of `ENCODERS`.
    quality : int or None
        Constant rate factor; a lower one gives better quality and larger files.
    planes : PlaneFormat
    height, width : int
    tags : VideoTags
        Tags of the source.
    """

    codec: str
    quality: int | None
    planes: PlaneFormat
    height: int
    width: int
    tags: VideoTags

    @property
    def suffix(self) -> str:
        """File ending of a segment."""
        return SEGMENT_SUFFIX.get(self.codec, ".nut")

    @property
    def keeps_hdr(self) -> bool:
        """Whether the stream itself can hold the metadata of HDR10."""
        return self.codec in PARAMETERS

    @property
    def rate(self) -> Fraction:
        """Frames per second while a segment is encoded; for ffv1, which ignores it, one that Matroska can count."""
        return Fraction(25) if self.codec == "ffv1" else self.tags.rate


def choose_codec(codec: Codec, name: str, height: int, width: int, is_hdr: bool = False) -> tuple[str, str]:
    """Return (codec, pixel format) for frames of a size.

    "auto" takes the most common codec that keeps depth, subsampling and opacity of `name`; for HDR10 that is hevc.
    """
    if codec == "auto":
        return next((candidate, name) for candidate in (("hevc", "h264") if is_hdr else ("h264", "hevc")) + ("ffv1",)
                    if _takes(candidate, name, height, width))
    bits = find_format(name, full_range=True).bits
    depth = "" if bits == 8 else f"{bits}le"
    for candidate in (name, *([f"yuv420p{depth}"] if name.startswith("gray") else []), f"yuv444p{depth}"):
        if _takes(codec, candidate, height, width):
            return codec, candidate
    raise InputError(f"--codec {codec}: cannot keep {name} frames; it accepts {', '.join(_pixel_formats(codec))}; "
                     "--codec auto finds one that does")


def keeps_alpha(codec: str, name: str) -> bool:
    """Return whether a codec can hold the pixel format `name`, which has opacity."""
    return codec in WITH_ALPHA and name in _pixel_formats(codec)


def _takes(codec: str, name: str, height: int, width: int) -> bool:
    planes = find_format(name, full_range=True)
    if planes.has_alpha and codec not in WITH_ALPHA:
        return False
    is_whole = height % planes.rows == width % planes.columns == 0
    return name in _pixel_formats(codec) and (is_whole or codec not in WHOLE_CHROMA)


def _pixel_formats(codec: str) -> list[str]:
    return [form.name for form in av.codec.Codec(ENCODERS[codec], "w").video_formats or []]


def write_segment(path: Path, frames: Iterable[Sequence[np.ndarray]], encoding: Encoding) -> None:
    """Encode frames, (H, W) planes of luma and chroma each, into a segment that appears whole or not at all."""
    muxer = MUXERS.get(path.suffix, "nut")
    with write_whole(path) as temporary, av.open(str(temporary), "w", format=muxer) as container:
        stream = _open_encoder(container, encoding)
        for index, planes in enumerate(frames):
            frame = _make_frame(planes, index, encoding)
            with kept_scheduling() if encoding.codec == "av1" else contextlib.nullcontext():
                packets = stream.encode(frame)
            container.mux(packets)
        container.mux(stream.encode(None))


def _open_encoder(container, encoding: Encoding):
    options = {"crf": str(encoding.quality)} if encoding.quality is not None else {}
    parameters = [*ALWAYS.get(encoding.codec, ()), *_hdr_parameters(encoding)]
    if encoding.codec == "h264" and _has_avx512():
        parameters += WITHOUT_AVX512
    if parameters:
        options[PARAMETERS[encoding.codec]] = ":".join(parameters)
    stream = container.add_stream(ENCODERS[encoding.codec], rate=encoding.rate, options=options)
    context, tags = stream.codec_context, encoding.tags
    stream.width, stream.height, stream.pix_fmt = encoding.width, encoding.height, encoding.planes.name
    context.thread_count = NUM_THREADS
    context.time_base = 1 / encoding.rate
    context.flags |= GLOBAL_HEADER
    context.color_range = 2 if encoding.planes.full_range else 1
    context.colorspace, context.color_primaries, context.color_trc = tags.matrix, tags.primaries, tags.transfer
    if tags.pixel_aspect:
        context.sample_aspect_ratio = tags.pixel_aspect
    return stream


def _has_avx512() -> bool:
    """Check whether x264 would use AVX-512 on this processor.

    With it, x264 (165, in PyAV 18) reads memory that nobody has written if a row of chroma is not a multiple of 64
    pixels, so that the same frames become another file each time.
    """
    with contextlib.suppress(OSError):
        return " avx512f " in Path("/proc/cpuinfo").read_text()
    return False


def _hdr_parameters(encoding: Encoding) -> list[str]:
    """Return the metadata of HDR10 as the encoder wants them: x264 and x265 in 1/50000 and 1/10000 cd/m2, SVT plain."""
    hdr, codec, parameters = encoding.tags.hdr, encoding.codec, []
    if not hdr or not encoding.keeps_hdr:
        return []
    if hdr.display is not None:
        place, light = (1, 1) if codec == "av1" else (50_000, 10_000)
        text = [f"{float(value * unit):.6g}" if codec == "av1" else str(round(value * unit))
                for value, unit in zip(hdr.display, [*[place] * 8, light, light], strict=True)]
        red, green, blue, white = (",".join(text[at : at + 2]) for at in (0, 2, 4, 6))
        name = "master-display" if codec == "hevc" else "mastering-display"
        parameters.append(f"{name}=G({green})B({blue})R({red})WP({white})L({text[9]},{text[8]})")
    if hdr.light is not None:
        name = {"hevc": "max-cll", "h264": "cll", "av1": "content-light"}[codec]
        parameters.append(f"{name}={hdr.light[0]},{hdr.light[1]}")
    return ["hdr10=1", *parameters] if codec == "hevc" else parameters


def _make_frame(planes: Sequence[np.ndarray], index: int, encoding: Encoding) -> VideoFrame:
    frame = VideoFrame(encoding.width, encoding.height, encoding.planes.name)
    for target, plane in zip(frame.planes, planes, strict=True):
        rows = np.frombuffer(target, encoding.planes.dtype).reshape(target.height, -1)
        rows[:, : target.width] = plane
    frame.pts, frame.time_base = index, 1 / encoding.rate
    frame.color_range = 2 if encoding.planes.full_range else 1
    frame.colorspace = encoding.tags.matrix
    frame.color_primaries, frame.color_trc = encoding.tags.primaries, encoding.tags.transfer
    return frame


def planes_of_rgb(rgb: np.ndarray, encoding: Encoding) -> list[np.ndarray]:
    """Convert (3, H, W) RGB in float32 grey levels 0..255 to the planes of `encoding`, which have no opacity."""
    if encoding.planes.bits > 8:
        return _deep_planes(rgb, encoding)
    stored = np.rint(rgb.clip(0, GREY)).astype(np.uint8)
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(stored.transpose(1, 2, 0)), format="rgb24")
    matrix = MATRICES.get(encoding.tags.matrix, Colorspace.ITU601)
    frame = frame.reformat(
        format=encoding.planes.name, interpolation=EXACT, threads=1, src_colorspace=matrix, dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.JPEG if encoding.planes.full_range else ColorRange.MPEG)
    return [read_plane(plane, encoding.planes.dtype).copy() for plane in frame.planes]


def _deep_planes(rgb: np.ndarray, encoding: Encoding) -> list[np.ndarray]:
    planes = encoding.planes
    luma, *chroma = colour.planes_of_rgb(rgb, planes.whole, encoding.tags.matrix)
    if planes.name.startswith("gray"):
        return [luma]
    if planes == planes.whole:
        return [luma, *chroma]
    # only chroma is made smaller
    frame = VideoFrame(encoding.width, encoding.height, planes.whole.name)
    for target, plane in zip(frame.planes, (luma, *chroma), strict=True):
        read_plane(target, planes.dtype)[:] = plane
    wide = ColorRange.JPEG if planes.full_range else ColorRange.MPEG
    frame = frame.reformat(format=planes.name, interpolation=EXACT, threads=1, src_color_range=wide,
                           dst_color_range=wide)
    return [read_plane(plane, planes.dtype).copy() for plane in frame.planes]
