"""Joins the segments of a video with PyAV.

Every frame gets the time stamp of its source, and what the source has beside its pictures is copied.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import io
import operator
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av

from hpc_vsr.media.video_file import ONLY_THIS_FILE, find_video
from hpc_vsr.media.video_sink import ENCODERS, MUXERS, Encoding
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import write_whole

MILLISECOND = Fraction(1, 1000)
CONTAINER_TAGS = ("major_brand", "minor_version", "compatible_brands", "vendor_id")
# how tags begin that do not hold for the copy: the encoder and its settings, statistics; Matroska has them in capitals
PASSING_TAGS = ("encoder", "bps", "duration", "number_of_", "_statistics_")
EARLIEST = -30  # seconds; Matroska's blocks can begin 32 seconds before 0


def check_container(path: Path, codec: str, source: Path, times: Sequence[int] = (), time_base: Fraction = MILLISECOND,
                    has_clock: bool = True) -> list[str]:
    """Check that a file named `path` can hold the codec, the times and what the source has beside its pictures.

    Parameters
    ----------
    path : Path
        The output.
    codec : str
    source : Path
        The video that is upscaled.
    times : sequence of int
        Time stamps of its frames in `time_base`.
    time_base : Fraction
        Seconds.
    has_clock : bool
        Whether the sound of the source fits to these times; else it is left out.

    Returns
    -------
    list of str
        Streams that it will leave out, in words: data, fonts, the picture of a cover.

    Raises
    ------
    InputError
        If its type is not one of `MUXERS`, or it cannot hold the codec, an audio stream or a subtitle stream, or tell
        the times of two frames apart.
    """
    # the container and the codec of the pictures
    muxer = MUXERS.get(path.suffix.lower())
    if muxer is None:
        raise InputError(f"{path}: a video is written as {', '.join(MUXERS)}; choose one of these endings")
    supported = _supported(muxer)
    ticks = 1000 * time_base
    is_fast = len({(2 * time * ticks.numerator + ticks.denominator) // (2 * ticks.denominator) for time in times}
                  ) < len(times)
    fitting = [ending for ending in MUXERS if holds(ending, codec) and not (is_fast and ending == ".mkv")]
    advice = f"write {' or '.join(fitting)}" if fitting else "choose another --codec"
    if not holds(path.suffix, codec):
        raise InputError(f"{path}: a {path.suffix} file cannot hold {codec}; {advice}")
    if muxer == "matroska" and is_fast:
        raise InputError(f"{path}: a {path.suffix} file counts milliseconds, and {source.name} has several frames in "
                         f"one; {advice}")
    with av.open(str(source), **ONLY_THIS_FILE) as container:
        # sound and subtitles of the source
        beside = [stream for stream in container.streams if stream is not find_video(container)]
        kept = _sound_and_subtitles(container) if has_clock else []
        for stream in kept:
            if stream.codec_context.codec.canonical_name not in supported:
                raise InputError(f"{path}: a {path.suffix} file cannot hold {stream.type} stream {stream.index} of "
                                 f"{source.name} ({stream.codec_context.name}); write a .mkv file")
        return [f"{stream.type} stream {stream.index}" for stream in beside if stream not in kept]


def holds(ending: str, codec: str) -> bool:
    """Return whether a file with an ending of `MUXERS` can hold a codec of `ENCODERS`."""
    muxer = MUXERS.get(ending.lower())
    return muxer is not None and av.codec.Codec(ENCODERS[codec], "w").canonical_name in _supported(muxer)


@functools.cache
def _supported(muxer: str) -> frozenset[str]:
    with av.open(io.BytesIO(), "w", format=muxer) as target:
        return frozenset(target.supported_codecs - ({"av1"} if muxer == "mov" else set()))  # FFmpeg lists it, and fails


def _sound_and_subtitles(container) -> list:
    return [stream for stream in container.streams if stream.type in ("audio", "subtitle")]


def join_segments(path: Path, segments: Sequence[Path], encoding: Encoding, source: Path, times: Sequence[int],
                  is_whole: bool, comment: str, has_clock: bool = True) -> None:
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
    has_clock : bool
        Whether the sound of the source fits to these times; else it is left out.
    """
    muxer, tags = MUXERS[path.suffix.lower()], encoding.tags
    begin, end = (0, None) if is_whole else (times[0], times[-1])
    options = {"fflags": "+bitexact", **({"movflags": "+faststart"} if muxer in ("mp4", "mov") else {})}
    if muxer in ("mp4", "mov") and min(map(operator.sub, times[1:], times)) * tags.time_base < 2 * MILLISECOND:
        # the edit list, in which FFmpeg counts milliseconds by default, would end before the last frame
        options["movie_timescale"] = str(tags.time_base.denominator)
    if muxer == "matroska" and _earliest(source, times, tags.time_base) > EARLIEST:
        options["avoid_negative_ts"] = "disabled"  # else sound that begins before 0 would move everything
    with (write_whole(path) as temporary, av.open(str(source), **ONLY_THIS_FILE) as original,
          av.open(str(segments[0])) as first,
          av.open(str(temporary), "w", format=muxer, options=options) as target):
        # streams, with their metadata and chapters
        # as it is, because the decoder of av1 has another name than its encoder
        video = target.add_stream_from_template(first.streams.video[0], opaque=True)
        video.time_base = tags.time_base
        _copy_description(find_video(original), video)
        if tags.rotation:
            video.set_display_rotation(tags.rotation)
        beside = {stream.index: target.add_stream_from_template(stream)
                  for stream in (_sound_and_subtitles(original) if has_clock else [])}
        for index, stream in beside.items():
            _copy_description(original.streams[index], stream)
        target.metadata.update(_kept_tags(original.metadata))
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
    target.metadata.update(_kept_tags(source.metadata))
    target.disposition = source.disposition


def _earliest(source: Path, times: Sequence[int], time_base: Fraction) -> Fraction:
    """Return when the first stream of a source begins, in seconds."""
    with av.open(str(source), **ONLY_THIS_FILE) as original:
        begins = [stream.start_time * stream.time_base for stream in _sound_and_subtitles(original)
                  if stream.start_time is not None]
    return min([times[0] * time_base, *begins])


def _kept_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a source that hold for a copy too."""
    return {key: value for key, value in metadata.items()
            if key.lower() not in CONTAINER_TAGS and not key.lower().startswith(PASSING_TAGS)}


def _decoding_time(packet) -> Fraction:
    return (packet.dts if packet.dts is not None else packet.pts or 0) * packet.time_base


def _video_packets(segments: Sequence[Path], stream, times: Sequence[int], time_base: Fraction) -> Iterator:
    """Yield the packets of all segments with the time stamps of their frames.

    The time stamps of decoding follow from the order of the packets.
    """
    # every segment is decoded as far ahead of display as the one that needs it most
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


def _read_packets(path: Path) -> list:
    with av.open(str(path), **ONLY_THIS_FILE) as container:
        return [packet for packet in container.demux(container.streams.video[0]) if packet.size]


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
    with contextlib.suppress(av.error.FFmpegError, OSError), av.open(str(path), **ONLY_THIS_FILE) as container:
        return next((value for key, value in container.metadata.items() if key.lower() == "comment"), "")
    return ""
