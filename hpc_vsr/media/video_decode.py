"""Decodes the pictures of a video with PyAV, exactly and by their time stamps."""

from __future__ import annotations

import bisect
import contextlib
import itertools
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
from av.video.frame import PictureType, VideoFrame

from hpc_vsr.media.video_file import NO_STAMP, find_video, numbered, open_container
from hpc_vsr.system.errors import InputError

SEEK_ATTEMPTS = 2
DECODING_ERRORS = av.error.FFmpegError
MEND_DAMAGE = "copy the file again, or let the frame before stand in for what is damaged with --damaged repeat"


@dataclass(frozen=True)
class Stamps:
    """The time stamps by which the pictures of a video are known, and where decoding can begin.

    Attributes
    ----------
    pictures : sequence of int
        Ascending.
    keys : dict
        {time stamp of a key picture: (number, position, size) of its packet}.
    first : int
        Number of the first packet that is decoded.
    given : array of int, optional
        A time stamp for each packet, in place of those in the file, which are missing or not unique. Then the file
        cannot be sought in; packets before a key picture are read and thrown away.
    """

    pictures: Sequence[int]
    keys: dict[int, tuple[int, int, int]]
    first: int
    given: array | None = None


class Decoder:
    """Decodes a video from any picture on.

    Parameters
    ----------
    path : Path
    stamps : Stamps
    num_threads : int
        0 lets the decoder choose.
    tolerant : bool
        Whether packets that cannot be decoded are passed over. The caller knows which pictures are missing then.
    """

    def __init__(self, path: Path, stamps: Stamps, num_threads: int = 0, tolerant: bool = False):
        self._path = path
        self._stamps = stamps
        self._num_threads = num_threads
        self._tolerant = tolerant
        self._key_stamps = sorted(stamps.keys)

    def frames_from(self, stamp: int) -> Iterator[VideoFrame]:
        """Decode so that the first frame is the picture `stamp`: from a key picture before it, or from the start.

        An attempt counts only if it starts at a whole picture and reaches the requested one. Raises FFmpeg's errors.
        """
        before = bisect.bisect_right(self._key_stamps, stamp)
        # try the nearest key pictures before it, the last first
        for key in reversed(self._key_stamps[1:before][-SEEK_ATTEMPTS:]):
            frames = self._after_seek(key, stamp)
            with contextlib.suppress(av.error.FFmpegError):
                first = next((frame for frame in frames if frame.pts is not None and frame.pts >= stamp), None)
                if first is not None and first.pts == stamp and not first.is_corrupt:
                    yield first
                    yield from frames
                    return
        # no seek was exact
        yield from (frame for frame in self.all_frames() if frame.pts is not None and frame.pts >= stamp)

    def all_frames(self) -> Iterator[VideoFrame]:
        """Decode from the start."""
        with open_container(self._path) as container:
            stream = self._prepare(container)
            yield from self._decode(stream, self._packets(container, stream, self._stamps.first))

    def _after_seek(self, key: int, stamp: int) -> Iterator[VideoFrame]:
        """Yield the frames from a key picture on; none if the seek did not land exactly on a key packet of the index.

        In an MPEG program stream a seek lands somewhere near, with time stamps that are guessed anew. With intra
        refresh a "key" packet is a picture like the others, and the pictures after it would lack what they refer to.
        """
        with open_container(self._path) as container:
            stream = self._prepare(container)
            if self._stamps.given is None:
                container.seek(key, stream=stream, backward=True)
                packets = (packet for packet in container.demux(stream) if packet.size)
            else:
                packets = self._packets(container, stream, self._stamps.keys[key][0])
            first = next(packets, None)
            # check that the first packet is a key packet of the index, byte for byte
            if first is None or first.pts is None or first.pts > stamp \
                    or self._stamps.keys.get(first.pts, ())[1:] != (first.pos, first.size):
                return
            begin = first.pts
            frames = self._decode(stream, itertools.chain([first], packets))
            start = next((frame for frame in frames if frame.pts is not None and frame.pts >= begin), None)
            # check that it decodes to a whole picture
            if start is None or start.pts != begin or start.pict_type != PictureType.I:
                return
            yield start
            yield from frames

    def _packets(self, container, stream, begin: int) -> Iterator:
        """Yield the packets from number `begin` on, with the time stamps that were given to them."""
        given = self._stamps.given
        for number, packet in numbered(container, stream):
            if number < begin:
                continue
            if given is not None:
                packet.pts = None if given[number] == NO_STAMP else given[number]
                packet.dts = None
            yield packet

    def _decode(self, stream, packets) -> Iterator[VideoFrame]:
        for packet in packets:
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                if not self._tolerant:
                    raise
                continue
            yield from frames
        with contextlib.suppress(av.error.FFmpegError) if self._tolerant else contextlib.nullcontext():
            yield from stream.codec_context.decode(None)

    def _prepare(self, container):
        stream = find_video(container)
        stream.codec_context.thread_count = self._num_threads
        # with threads for whole frames, an error takes frames before it along
        stream.thread_type = "SLICE" if self._tolerant else "AUTO"
        return stream


def survey(path: Path, first: int, tolerant: bool, num_threads: int = 0) -> tuple[list[int], set[int]]:
    """Decode a whole video, to know in which order its pictures are shown and which are damaged.

    Parameters
    ----------
    path : Path
    first : int
        Number of the first packet to decode.
    tolerant : bool
        Whether to go on at a packet that cannot be decoded.

    Returns
    -------
    list of int
        Numbers of the packets in the order in which their pictures are shown; only of whole pictures.
    set of int
        Numbers of the packets that could not be decoded, or only in part.

    Raises
    ------
    InputError
        If a picture is damaged, unless `tolerant`.
    """
    order, failed = [], set()
    with open_container(path) as container:
        stream = find_video(container)
        stream.codec_context.thread_count = num_threads
        stream.thread_type = "SLICE" if tolerant else "AUTO"
        for number, packet in itertools.chain(numbered(container, stream), [(-1, None)]):
            if 0 <= number < first:
                continue
            frames = []
            with _damage_of(path, number, failed, tolerant):
                if packet is None:
                    frames = stream.codec_context.decode(None)
                else:
                    packet.pts = packet.dts = number  # the decoder hands it on to the frame
                    frames = packet.decode()
            for frame in frames:
                if frame.is_corrupt:
                    with _damage_of(path, frame.pts, failed, tolerant):
                        raise av.error.InvalidDataError(0, "only a part of it is there")
                else:
                    order.append(frame.pts)
    return order, failed


@contextlib.contextmanager
def _damage_of(path: Path, number: int, failed: set[int], tolerant: bool) -> Iterator[None]:
    """Turn an error of the decoder into an `InputError`, or note the number of the packet if `tolerant`."""
    try:
        yield
    except av.error.FFmpegError as error:
        if not tolerant:
            which = f"picture {number}" if number >= 0 else "the last picture"
            raise InputError(f"{path}: {which} cannot be decoded ({error.strerror}); {MEND_DAMAGE}") from None
        failed.add(number)
