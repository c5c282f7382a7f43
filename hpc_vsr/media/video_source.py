"""Reads frames of a video file with PyAV, exactly and by number."""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from hpc_vsr.media.colour import NAMES, select_channels
from hpc_vsr.media.planes import BLACK, EXTENT, PlaneFormat, find_format, read_plane
from hpc_vsr.media.reading import Damaged, Facts
from hpc_vsr.media.source import Channels
from hpc_vsr.media.tags import read_tags
from hpc_vsr.media.video_file import index_packets, open_container
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import check_input_file

# swscale's default conversion darkens Y by 1.4 grey levels on average, these flags by 0.01: docs/decisions.md
EXACT = (Interpolation.BICUBIC | Interpolation.ACCURATE_RND
         | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP)
MATRICES = {1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.ITU601,
            7: Colorspace.SMPTE240M}  # ISO/IEC 23091-2 code to libswscale's
UNTAGGED_MATRIX, RGB_MATRIX = 2, 0
FULL_RANGE = 2
# pixel formats whose first plane is 8-bit luma
WITH_LUMA_PLANE = {"gray", "nv12", "nv21", *(f"yuv{j}{sampling}p" for j in ("", "j")
                                             for sampling in (410, 411, 420, 422, 440, 444))}
SEEK_ATTEMPTS = 2


class VideoSource:
    """Frames of the first video stream in presentation order; see `hpc_vsr.media.source.Source`.

    Frame numbers come from the time stamps of the packets, which are read without decoding. Reading starts at the key
    frame before the requested range.
    """

    dtype = "uint8"

    def __init__(self, path: Path, channels: Channels, num_threads: int = 0):
        self.files = [path]
        self.channels = NAMES[channels]
        self._channels: Channels = channels
        self._num_threads = num_threads
        self._index = index_packets(path)
        self._timestamps, self._key_packets = self._index.timestamps, self._index.keys
        self._key_timestamps = sorted(self._key_packets)
        with open_container(path) as container:
            stream = container.streams.video[0]
            first = self._next_frame(container.decode(stream), 0)
            self.height, self.width = first.height, first.width
            self.description = _describe(stream, first)
            self.tags = read_tags(stream, first, _is_full_range(first))
            if channels == "y":
                self.description["luma"] = "as coded" if _has_luma_plane(first) else "from RGB"
        self.num_frames = len(self._timestamps)
        self.facts = Facts()
        last = max(0, self.num_frames - 1)
        # files break at their end: decode the last frame now, so that the error does not come after hours
        for _ in self._decode(last, last + 1):
            pass

    def read(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, None]]:
        """Yield the frames start..stop-1, each (C, H, W) uint8 0..255, and None: no value is missing."""
        for frame in self._decode(start, stop):
            if self._channels == "y" and _has_luma_plane(frame):
                yield _read_luma_plane(frame)[None], None
            else:
                yield select_channels(self._to_rgb(frame), self._channels), None

    @property
    def times(self) -> list[int]:
        """Time stamps of all frames, then the end of the last frame, in `tags.time_base`."""
        return [*self._timestamps, self._timestamps[-1] + self._index.last_duration]

    def planes(self, name: str) -> PlaneFormat:
        """Return the format of the planes that `read_planes` gives for FFmpeg's pixel format `name`."""
        found = find_format(name, self.tags.full_range)
        assert found is not None, name
        return found

    def read_planes(self, start: int, stop: int, name: str) -> Iterator[list[np.ndarray]]:
        """Yield the (H, W) planes of luma and chroma of the frames start..stop-1 in the pixel format `name`."""
        planes = self.planes(name)
        for frame in self._decode(start, stop):
            if frame.format.name.replace("yuvj", "yuv") != name:
                frame = self._reformat(frame, name, ColorRange.JPEG if planes.full_range else ColorRange.MPEG)
            yield [read_plane(plane, planes.dtype).copy() for plane in frame.planes]

    def _decode(self, start: int, stop: int) -> Iterator[VideoFrame]:
        """Yield the frames start..stop-1; `InputError` if one is missing, damaged or of another size."""
        path = self.files[0]
        frames = self._frames_from(start)
        for index in range(start, stop):
            frame = self._next_frame(frames, index)
            if frame.pts != self._timestamps[index]:
                raise InputError(f"{path}: frame {index} (time stamp {self._timestamps[index]}) is missing after "
                                 "decoding; the file is damaged, re-encode it")
            if frame.is_corrupt:
                raise InputError(f"{path}: frame {index} is damaged; cut the video before it or re-encode it")
            if (frame.height, frame.width) != (self.height, self.width):
                raise InputError(f"{path}: the size changes at frame {index} from {self.width}x{self.height} "
                                 f"to {frame.width}x{frame.height}; cut the video there")
            yield frame

    def _frames_from(self, index: int) -> Iterator[VideoFrame]:
        """Decode so that the first frame is number `index`: from a key frame before it, or else from the start.

        An attempt counts only if it starts at a whole picture and reaches the requested frame.
        """
        timestamp = self._timestamps[index]
        before = bisect.bisect_right(self._key_timestamps, timestamp)
        # try the nearest key frames before it, the last first
        for key in reversed(self._key_timestamps[1:before][-SEEK_ATTEMPTS:]):
            frames = self._after_seek(key, timestamp)
            with contextlib.suppress(av.error.FFmpegError):
                first = next((frame for frame in frames if frame.pts is not None and frame.pts >= timestamp), None)
                if first is not None and first.pts == timestamp and not first.is_corrupt:
                    yield first
                    yield from frames
                    return
        with open_container(self.files[0]) as container:
            # no seek was exact: decode from the start
            frames = container.decode(self._threaded(container))
            yield from (frame for frame in frames if frame.pts is not None and frame.pts >= timestamp)

    def _after_seek(self, key: int, timestamp: int) -> Iterator[VideoFrame]:
        """Yield the frames from a key frame on; none if the seek did not land exactly on a key packet of the index.

        In an MPEG program stream a seek lands somewhere near, with time stamps that are guessed anew. With intra
        refresh a "key" packet is a picture like the others, and the pictures after it would lack what they refer to.
        """
        with open_container(self.files[0]) as container:
            stream = self._threaded(container)
            container.seek(key, stream=stream, backward=True)
            packets = container.demux(stream)
            first = next(packets, None)
            # check that the first packet is a key packet of the index, byte for byte
            if first is None or first.pts is None or first.pts > timestamp \
                    or self._key_packets.get(first.pts) != (first.pos, first.size):
                return
            frames = (frame for packet in itertools.chain([first], packets) for frame in packet.decode())
            start = next((frame for frame in frames if frame.pts is not None and frame.pts >= first.pts), None)
            # check that it decodes to a whole picture
            if start is None or start.pts != first.pts or start.pict_type != PictureType.I:
                return
            yield start
            yield from frames

    def _threaded(self, container):
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = self._num_threads
        return stream

    def _next_frame(self, frames: Iterator[VideoFrame], index: int) -> VideoFrame:
        path = self.files[0]
        try:
            return next(frames)
        except StopIteration:
            raise InputError(f"{path}: ends before frame {index} of {len(self._timestamps)}; "
                             "the file is truncated, copy it again") from None
        except av.error.FFmpegError as error:
            raise InputError(f"{path}: frame {index} cannot be decoded ({error.strerror}); "
                             "the file is damaged, copy it again or re-encode it") from None

    def _to_rgb(self, frame: VideoFrame) -> np.ndarray:
        return self._reformat(frame, "rgb24", ColorRange.JPEG).to_ndarray()

    def _reformat(self, frame: VideoFrame, name: str, colour_range: ColorRange) -> VideoFrame:
        matrix = MATRICES.get(int(frame.colorspace), Colorspace.ITU601)
        return frame.reformat(
            format=name, interpolation=EXACT, threads=1, src_colorspace=matrix, dst_colorspace=matrix,
            src_color_range=ColorRange.JPEG if _is_full_range(frame) else ColorRange.MPEG,
            dst_color_range=colour_range)


def open_video(path: Path, channels: Channels = "y", num_threads: int = 0, bits: int | None = None,
               rate: float | None = None, damaged: Damaged = "refuse") -> VideoSource:
    """Open a video file for reading by frame number.

    Parameters
    ----------
    path : Path
        Any container and codec that FFmpeg reads.
    channels : {"y", "rgb"}
    num_threads : int
        Threads of the decoder; 0 lets it choose.

    Raises
    ------
    InputError
        If it is not a video, has no video stream, is truncated, or its frames have no time stamps.
    """
    check_input_file(path, "a video file")
    return VideoSource(path, channels, num_threads)


def _describe(stream, frame: VideoFrame) -> dict:
    matrix = int(frame.colorspace)
    return {
        "codec": stream.codec_context.name,
        "pixel_format": frame.format.name,
        "frames_per_second": str(stream.average_rate),
        "colour_matrix": "RGB" if frame.format.is_rgb or matrix == RGB_MATRIX
                         else MATRICES.get(matrix, Colorspace.ITU601).name
                         + (" (not tagged)" if matrix == UNTAGGED_MATRIX else ""),
        "colour_range": "full" if _is_full_range(frame) else "limited",
    }


def _has_luma_plane(frame: VideoFrame) -> bool:
    """Check whether the coded frame has Y of BT.601 as a plane, so that no colour conversion is needed."""
    name = frame.format.name
    return name == "gray" or (name in WITH_LUMA_PLANE
                              and MATRICES.get(int(frame.colorspace), Colorspace.ITU601) == Colorspace.ITU601)


def _read_luma_plane(frame: VideoFrame) -> np.ndarray:
    """Return the luma plane as (H, W) uint8 Y in full range."""
    luma = read_plane(frame.planes[0], np.uint8)
    return luma.copy() if _is_full_range(frame) else cv2.convertScaleAbs(cv2.subtract(luma, BLACK), alpha=255 / EXTENT)


def _is_full_range(frame: VideoFrame) -> bool:
    name = frame.format.name
    return (int(frame.color_range) == FULL_RANGE or frame.format.is_rgb
            or name.startswith(("yuvj", "gray", "pal8", "mono")) and int(frame.color_range) != 1)
