"""Writes segments of a video and joins them. The only file that imports the encoder (PyAV).

A segment is a file with the packets of a run of frames; its time stamps give only the order of the frames. Joining
gives every frame the time stamp of its source, and copies what the source has beside its pictures.
"""

from __future__ import annotations

import contextlib
import heapq
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from hpc_vsr.media.planes import PlaneFormat, find_format, read_plane
from hpc_vsr.media.tags import Codec, VideoTags
from hpc_vsr.media.video_source import EXACT, MATRICES, THIS_FILE_ALONE
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import write_whole

ENCODERS = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "prores": "prores_ks", "ffv1": "ffv1"}
# constant rate factors at which a loss is hard to see; prores has its own quality, and ffv1 loses nothing
QUALITY = {"h264": 16, "hevc": 18, "av1": 20}
QUIET = {"hevc": {"x265-params": "log-level=error"}}
MUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".m4v": "mp4"}
OF_CONTAINER = ("encoder", "major_brand", "minor_version", "compatible_brands", "vendor_id")
OF_STATISTICS = ("BPS", "DURATION", "NUMBER_OF_", "_STATISTICS_")  # Matroska's, which do not hold for the copy
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
    def rate(self) -> Fraction:
        """Frames per second while a segment is encoded; for ffv1, which ignores it, one that Matroska can count."""
        return Fraction(25) if self.codec == "ffv1" else self.tags.rate


def choose_codec(codec: Codec, name: str) -> tuple[str, str]:
    """Return (codec, pixel format); "auto" takes the most common codec that keeps depth and subsampling of `name`."""
    if codec == "auto":
        return next((candidate, name) for candidate in ("h264", "hevc", "ffv1") if name in _pixel_formats(candidate))
    bits = find_format(name, full_range=True).bits
    depth = "" if bits == 8 else f"{bits}le"
    for candidate in (name, *([f"yuv420p{depth}"] if name.startswith("gray") else []), f"yuv444p{depth}"):
        if candidate in _pixel_formats(codec):
            return codec, candidate
    raise InputError(f"--codec {codec}: cannot keep {name} frames; it accepts {', '.join(_pixel_formats(codec))}; "
                     "--codec auto finds one that does")


def _pixel_formats(codec: str) -> list[str]:
    return [form.name for form in av.codec.Codec(ENCODERS[codec], "w").video_formats or []]


def write_segment(path: Path, frames: Iterable[Sequence[np.ndarray]], encoding: Encoding) -> None:
    """Encode frames, (H, W) planes of luma and chroma each, into a segment that appears whole or not at all."""
    muxer = MUXERS.get(path.suffix, "nut")
    with write_whole(path) as temporary, av.open(str(temporary), "w", format=muxer) as container:
        stream = _open_encoder(container, encoding)
        for index, planes in enumerate(frames):
            container.mux(stream.encode(_make_frame(planes, index, encoding)))
        container.mux(stream.encode(None))


def _open_encoder(container, encoding: Encoding):
    options = {"crf": str(encoding.quality)} if encoding.quality is not None else {}
    stream = container.add_stream(ENCODERS[encoding.codec], rate=encoding.rate,
                                  options={**options, **QUIET.get(encoding.codec, {})})
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
    """Convert (3, H, W) uint8 RGB to the planes of `encoding`."""
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(rgb.transpose(1, 2, 0)), format="rgb24")
    matrix = MATRICES.get(encoding.tags.matrix, Colorspace.ITU601)
    frame = frame.reformat(
        format=encoding.planes.name, interpolation=EXACT, threads=1, src_colorspace=matrix, dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.JPEG if encoding.planes.full_range else ColorRange.MPEG)
    return [read_plane(plane, encoding.planes.dtype).copy() for plane in frame.planes]


def _read_packets(path: Path) -> list:
    with av.open(str(path), **THIS_FILE_ALONE) as container:
        return [packet for packet in container.demux(container.streams.video[0]) if packet.size]


def check_container(path: Path, codec: str, source: Path) -> list[str]:
    """Check that a file named `path` can hold the codec and what the source has beside its pictures.

    Returns
    -------
    list of str
        Streams that it will leave out, in words: data, fonts, the picture of a cover.

    Raises
    ------
    InputError
        If its type is not one of `MUXERS`, or it cannot hold the codec, an audio stream or a subtitle stream.
    """
    # the container and the codec of the pictures
    muxer = MUXERS.get(path.suffix.lower())
    if muxer is None:
        raise InputError(f"{path}: a video is written as {', '.join(MUXERS)}; choose one of these endings")
    with av.open(io.BytesIO(), "w", format=muxer) as target:
        supported = target.supported_codecs
    if av.codec.Codec(ENCODERS[codec], "w").canonical_name not in supported:
        raise InputError(f"{path}: a {path.suffix} file cannot hold {codec}; write a .mkv file")
    with av.open(str(source), **THIS_FILE_ALONE) as container:
        # sound and subtitles of the source
        beside = [stream for stream in container.streams if stream is not container.streams.video[0]]
        kept = _kept_beside(container)
        for stream in kept:
            if stream.codec_context.codec.canonical_name not in supported:
                raise InputError(f"{path}: a {path.suffix} file cannot hold {stream.type} stream {stream.index} of "
                                 f"{source.name} ({stream.codec_context.name}); write a .mkv file")
        return [f"{stream.type} stream {stream.index}" for stream in beside if stream not in kept]


def _kept_beside(container) -> list:
    return [stream for stream in container.streams if stream.type in ("audio", "subtitle")]


def join_segments(path: Path, segments: Sequence[Path], encoding: Encoding, source: Path, times: Sequence[int],
                  is_whole: bool, comment: str) -> None:
    """Join segments into one video with the time stamps, sound, subtitles, chapters and tags of its source.

    Parameters
    ----------
    path : Path
        Output file; it appears whole or not at all.
    segments : sequence of Path
        Segments in order.
    encoding : Encoding
    source : Path
        The video that was upscaled.
    times : sequence of int
        Time stamps of the frames in the source, then the end of the last frame.
    is_whole : bool
        Whether these are all frames of the source; otherwise the output begins at time 0.
    comment : str
        Comment for the file's metadata.
    """
    muxer, tags = MUXERS[path.suffix.lower()], encoding.tags
    begin, end = (0, None) if is_whole else (times[0], times[-1])
    options = {"fflags": "+bitexact", **({"movflags": "+faststart"} if muxer in ("mp4", "mov") else {})}
    with (write_whole(path) as temporary, av.open(str(source), **THIS_FILE_ALONE) as original,
          av.open(str(segments[0])) as first,
          av.open(str(temporary), "w", format=muxer, options=options) as target):
        # streams, with their metadata and chapters
        video = target.add_stream_from_template(first.streams.video[0])
        video.time_base = tags.time_base
        _copy_description(original.streams.video[0], video)
        if tags.rotation:
            video.set_display_rotation(tags.rotation)
        beside = {stream.index: target.add_stream_from_template(stream) for stream in _kept_beside(original)}
        for index, stream in beside.items():
            _copy_description(original.streams[index], stream)
        target.metadata.update({key: value for key, value in original.metadata.items() if key not in OF_CONTAINER})
        target.metadata["comment"] = comment
        if is_whole:
            target.set_chapters(original.chapters())
        # packets of all streams, in the order of decoding
        pictures = _video_packets(segments, video, [time - begin for time in times], tags.time_base)
        others = _packets_beside(original, beside, begin * tags.time_base,
                                 None if end is None else end * tags.time_base)
        for packet in heapq.merge(pictures, others, key=_decoding_time):
            target.mux(packet)


def _copy_description(source, target) -> None:
    target.metadata.update({key: value for key, value in source.metadata.items()
                            if key not in OF_CONTAINER and not key.startswith(OF_STATISTICS)})
    target.disposition = source.disposition


def _decoding_time(packet) -> Fraction:
    return (packet.dts if packet.dts is not None else packet.pts or 0) * packet.time_base


def _video_packets(segments: Sequence[Path], stream, times: Sequence[int], time_base: Fraction) -> Iterator:
    """Yield the packets of all segments with the time stamps of their frames.

    The time stamps of decoding follow from the order of the packets.
    """
    delay = max(_decoding_lead(segment) for segment in segments)
    step = times[1] - times[0]
    first = decoded = 0
    for segment in segments:
        packets = _read_packets(segment)
        for packet, rank in zip(packets, _display_ranks(packets), strict=True):
            index, before = first + rank, decoded - delay
            packet.time_base, packet.stream = time_base, stream
            packet.pts, packet.duration = times[index], times[index + 1] - times[index]
            packet.dts = times[before] if before >= 0 else times[0] + before * step
            decoded += 1
            yield packet
        first += len(packets)


def _display_ranks(packets: Sequence) -> list[int]:
    """Return the place of each packet's frame in the order of display."""
    order = {pts: rank for rank, pts in enumerate(sorted(packet.pts for packet in packets))}
    return [order[packet.pts] for packet in packets]


def _decoding_lead(segment: Path) -> int:
    """Return by how many frames decoding must be ahead of display."""
    return max(position - rank for position, rank in enumerate(_display_ranks(_read_packets(segment))))


def _packets_beside(original, beside: dict, begin: Fraction, end: Fraction | None) -> Iterator:
    """Yield the packets of sound and subtitles between two times in seconds, shifted so that they begin at 0."""
    if not beside:
        return
    for packet in original.demux([original.streams[index] for index in beside]):
        if packet.size == 0 or packet.pts is None:
            continue
        if end is not None and not begin <= packet.pts * packet.time_base < end:
            continue
        shift = round(begin / packet.time_base)
        packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift
        packet.stream = beside[packet.stream.index]
        yield packet


def read_comment(path: Path) -> str:
    """Return the comment in a video's metadata; empty if it has none or cannot be read."""
    with contextlib.suppress(av.error.FFmpegError, OSError), av.open(str(path), **THIS_FILE_ALONE) as container:
        return next((value for key, value in container.metadata.items() if key.lower() == "comment"), "")
    return ""
