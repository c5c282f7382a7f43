"""Opens video files with PyAV, finds the stream that is the video, and lists its packets without decoding."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from av.stream import Disposition

from hpc_vsr.system.errors import InputError

# For tags that are not UTF-8. PyAV 19 passes on their bytes by itself (PEP 383) and no longer has this option.
READ_TAGS = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
# A playlist (HLS, DASH, concat) named like a video could lead to other files or addresses: no reader for it is allowed.
ONLY_THIS_FILE = {**READ_TAGS, "options": {"protocol_whitelist": "file", "format_whitelist": (
    "asf,avi,av1,dv,flv,gif,h261,h263,h264,hevc,ivf,m4v,matroska,webm,mjpeg,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,"
    "mpegtsraw,mpegvideo,mxf,nsv,nut,obu,ogg,rawvideo,rm,swf,vc1,vc1test,vob,wtv,yuv4mpegpipe,apng,png_pipe")}}
STREAMS_WITHOUT_TIME = {"h261", "h263", "h264", "hevc", "m4v", "mjpeg", "mpegvideo", "obu", "vc1"}  # FFmpeg's formats
MATROSKA = "matroska,webm"  # FFmpeg's name of the container
TOP_OF_MATROSKA = (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67")  # EBML, Segment
PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails  # a cover, previews
NO_STAMP = -(1 << 63)
JPEG_END = b"\xff\xd9"
# Endings of recordings that FFmpeg does not read, and what reads them.
OTHER_READERS = {
    ".cine": "ffmpeg or the camera's software", ".mraw": "the camera's software", ".cih": "the camera's software",
    ".cihx": "the camera's software", ".seq": "Fiji or the recorder's software", ".czi": "Fiji with Bio-Formats",
    ".nd2": "Fiji with Bio-Formats", ".lif": "Fiji with Bio-Formats", ".r3d": "the camera's software",
    ".braw": "the camera's software", ".ser": "Siril or PIPP"}
# Where a container names the codec of a video stream.
CODEC_NAMES = (rb"vids.{48}.*?strf.{4}.{16}(.{4})", rb"stsd.{12}([\w .-]{4})", rb"(V_[A-Z0-9/_]{2,40})")


def open_container(path: Path):
    """Open a file that has a video stream, and a decoder for it, for reading."""
    try:
        container = av.open(str(path), **ONLY_THIS_FILE)
    except av.error.FFmpegError as error:
        raise InputError(f"{path}: cannot be read as a video ({error.strerror}); {_what_reads(path)}") from None
    try:
        stream = find_video(container)
        if stream is None:
            only = ", only a cover or previews" if container.streams.video else ""
            raise InputError(f"{path}: has no video stream{only}; give a video file")
        if stream.codec_context is None:
            raise InputError(f"{path}: its codec{_codec_name(path)} has no decoder here, so nothing is known of its "
                             "frames; export them with the software that recorded them, as FFV1, uncompressed AVI or "
                             "TIFF images")
    except InputError:
        container.close()
        raise
    return container


def find_video(container):
    """Return the stream that is the video: not a cover; a default one before others, then the largest, then the first.

    None if there is none.
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & PICTURES]
    preferred = [stream for stream in streams if stream.disposition & Disposition.default] or streams
    return max(preferred, key=_size, default=None)


def other_videos(container) -> list[str]:
    """Return the other streams that are videos, in words."""
    chosen = find_video(container)
    return [f"stream {stream.index} ({_size(stream)[0]}x{_size(stream)[1]})" for stream in container.streams.video
            if stream is not chosen and not stream.disposition & PICTURES]


def _size(stream) -> tuple[int, int]:
    context = stream.codec_context
    return (context.width, context.height) if context is not None else (0, 0)


def _what_reads(path: Path) -> str:
    reader = OTHER_READERS.get(path.suffix.lower())
    if reader:
        return f"{path.suffix} is not read here; export it with {reader}, as TIFF images or a lossless video"
    with path.open("rb") as file:
        start = file.read(12)
    if start[4:8] == b"ftyp":
        return "an MP4 without its index, as a recording that was cut off leaves it; it may be truncated"
    return "it may be truncated or of another type"


def _codec_name(path: Path) -> str:
    """Return " NAME" as the container has it; "" if it is not found."""
    with path.open("rb") as file:
        content = file.read(1 << 20)
        file.seek(max(0, path.stat().st_size - (1 << 20)))
        content += file.read()
    for pattern in CODEC_NAMES:
        if found := re.search(pattern, content, re.DOTALL):
            return f" {ascii(found[1].decode('latin-1').strip())}"
    return ""


@dataclass
class Packets:
    """The packets of a video in the order of decoding, without the empty ones.

    Attributes
    ----------
    pts, dts, durations, positions, sizes : array of int
        Time stamps are in `time_base`, `NO_STAMP` if there is none; positions and sizes in bytes.
    keys, corrupt, disposable, discarded, unfinished : set of int
        Numbers of packets: key pictures; flagged as damaged by the container; on which no other picture depends; left
        out by an edit list; JPEG pictures without their end.
    empty : list of int
        Time stamps of packets without content, as some recorders write for a dropped frame.
    container, codec : str
    time_base : Fraction
    rate : Fraction or None
        Frames per second as the file declares it.
    declared : int
        Number of frames that the container announces, 0 if it does not.
    reorders : bool
        Whether pictures may be coded in another order than they are shown.
    """

    container: str
    codec: str
    time_base: Fraction
    rate: Fraction | None
    declared: int
    reorders: bool
    pts: array = field(default_factory=lambda: array("q"))
    dts: array = field(default_factory=lambda: array("q"))
    durations: array = field(default_factory=lambda: array("q"))
    positions: array = field(default_factory=lambda: array("q"))
    sizes: array = field(default_factory=lambda: array("q"))
    keys: set[int] = field(default_factory=set)
    corrupt: set[int] = field(default_factory=set)
    disposable: set[int] = field(default_factory=set)
    discarded: set[int] = field(default_factory=set)
    unfinished: set[int] = field(default_factory=set)
    empty: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def all_keys(self) -> bool:
        """Whether every picture is coded by itself."""
        return len(self.keys) == len(self)

    @property
    def first(self) -> int:
        """Number of the first packet that can be decoded: the first key picture."""
        return min(self.keys, default=0)


def list_packets(path: Path) -> Packets:
    """Read what the container says of all packets of the video."""
    with open_container(path) as container:
        stream = find_video(container)
        context, name = stream.codec_context, container.format.name
        rate = context.framerate if name in STREAMS_WITHOUT_TIME else stream.average_rate
        packets = Packets(name, context.name, stream.time_base, rate or None, stream.frames, bool(context.has_b_frames))
        try:
            for packet in container.demux(stream):
                if packet.size == 0:
                    packets.empty += [packet.pts] if packet.pts is not None else []
                else:
                    _add(packets, packet)
        except av.error.FFmpegError as error:
            raise InputError(f"{path}: cannot be read beyond frame {len(packets)} ({error.strerror}); "
                             "the file is damaged, copy it again") from None
    return packets


def _add(packets: Packets, packet) -> None:
    number = len(packets)
    packets.pts.append(NO_STAMP if packet.pts is None else packet.pts)
    packets.dts.append(NO_STAMP if packet.dts is None else packet.dts)
    packets.durations.append(packet.duration or 0)
    packets.positions.append(-1 if packet.pos is None else packet.pos)
    packets.sizes.append(packet.size)
    for numbers, is_one in ((packets.keys, packet.is_keyframe), (packets.corrupt, packet.is_corrupt),
                            (packets.disposable, packet.is_disposable), (packets.discarded, packet.is_discard)):
        if is_one:
            numbers.add(number)
    # FFmpeg decodes the half of a JPEG picture without a word
    if packets.codec == "mjpeg" and JPEG_END not in bytes(memoryview(packet)[-64:]):
        packets.unfinished.add(number)


def numbered(container, stream) -> Iterator[tuple[int, object]]:
    """Yield (number, packet), counted as in `Packets`; an empty packet would end the decoding and is left out."""
    number = 0
    for packet in container.demux(stream):
        if packet.size:
            yield number, packet
            number += 1


def is_whole_avi(path: Path) -> bool:
    """Check whether the outer blocks of an AVI reach exactly as far as they say, so that nothing is cut off."""
    size, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position + 12 <= size:
            file.seek(position)
            head = file.read(8)
            length = int.from_bytes(head[4:], "little")
            if head[:4] != b"RIFF" or length == 0:
                return position > 0 and head[:4] != b"RIFF"  # something else after whole blocks
            position += 8 + length + length % 2
            if position - length % 2 > size:
                return False
    return position > 0


def announced_bytes(path: Path) -> int:
    """Return how many bytes a Matroska file announces; 0 if it does not, as a stream or a recording that was cut off.

    These are the elements of its top level, each with an ID, a length and so many bytes (RFC 8794, section 6).
    """
    size, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            head = file.read(12)
            if head[:4] not in TOP_OF_MATROSKA or len(head) < 5 or head[4] == 0:
                return position  # something else after whole elements
            width = 9 - head[4].bit_length()  # the leading zeros of the length say how many bytes it has
            mask = (1 << 7 * width) - 1
            length = int.from_bytes(head[4 : 4 + width], "big") & mask
            if length == mask or length == 0:
                return 0
            position += 4 + width + length
    return position
