"""Reads frames of a video file with PyAV, exactly and by number."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from hpc_vsr.media.colour import NAMES, rgb_of_planes, select_channels
from hpc_vsr.media.depth import STORED, Depth, Seen, full_depth
from hpc_vsr.media.planes import BLACK, EXTENT, GREY, PlaneFormat, find_format, nearest_format, read_plane
from hpc_vsr.media.reading import Damaged, Facts
from hpc_vsr.media.source import Channels
from hpc_vsr.media.tags import read_tags
from hpc_vsr.media.video_convert import MATRICES, is_full_range, reformat
from hpc_vsr.media.video_decode import MEND_DAMAGE, Decoder
from hpc_vsr.media.video_facts import describe, warn_of
from hpc_vsr.media.video_file import find_video, open_container, other_videos
from hpc_vsr.media.video_index import index_video
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import check_input_file

# pixel formats whose first plane is 8-bit luma
WITH_LUMA_PLANE = {"gray", "nv12", "nv21", *(f"yuv{j}{sampling}p" for j in ("", "j")
                                             for sampling in (410, 411, 420, 422, 440, 444))}
FEW = 5  # frames that are looked at to find the significant bits, and whether some pixel is transparent


class VideoSource:
    """Frames of a video in presentation order; see `hpc_vsr.media.source.Source`.

    Frame numbers come from the packets, which are read without decoding; see `hpc_vsr.media.video_index`. Reading
    starts at the key frame before the requested range.
    """

    def __init__(self, path: Path, channels: Channels, num_threads: int = 0, bits: int | None = None,
                 rate: float | None = None, damaged: Damaged = "refuse"):
        self.files = [path]
        self.channels = NAMES[channels]
        self._channels: Channels = channels
        self._index = index_video(path, rate, damaged, num_threads)
        self._is_tolerant = damaged == "repeat"
        self._decoder = Decoder(path, self._index.stamps, num_threads, self._is_tolerant)
        self.num_frames = len(self._index.shown)
        self.depth: Depth | None = None
        first = next(self._pictures(0, 1))
        self.height, self.width = first.height, first.width
        with open_container(path) as container:
            stream, others = find_video(container), other_videos(container)
            self.description = describe(stream, first)
            self.tags = dataclasses.replace(read_tags(stream, first, is_full_range(first)),
                                            time_base=self._index.time_base, rate=self._index.rate)
            warnings = warn_of(path, stream, first, others, self._few_pictures())
            if others:
                self.description["stream"] = stream.index
        is_deep = self.tags.depth > 8
        self.dtype = "float32" if is_deep else "uint8"
        self.description |= {**({"frames_per_second": str(self._index.rate)} if rate is not None else {}),
                             **self._index.description}
        if channels == "y":
            self.description["luma"] = "as coded" if self._has_luma_plane(first) else "from RGB"
        lines = [*self._index.lines, *(self._find_depth(path, bits) if is_deep else [])]
        if not is_deep and bits not in (None, 8):
            raise InputError(f"--bits: {path} has 8 bits; leave it out")
        self.facts = Facts(self._index.breaks, lines=lines, warnings=[*warnings, *self._index.warnings])
        # files break at their end: decode the last frame now, so that the error does not come after hours
        last = max(0, self.num_frames - 1)
        for _ in self._decode(last, last + 1):
            pass

    def read(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, None]]:
        """Yield the frames start..stop-1 and None, because no value is missing.

        Each is (C, H, W) uint8 0..255, or float32 grey levels 0..255 with fractions if the video has more than 8 bits.
        """
        for frame in self._decode(start, stop):
            if self.dtype == "float32":
                yield self._read_deep(frame), None
            elif self._channels == "y" and self._has_luma_plane(frame):
                yield _read_luma_plane(frame)[None], None
            else:
                yield select_channels(self._to_rgb(frame, "rgb24"), self._channels), None

    @property
    def times(self) -> list[int]:
        """Time stamps of all frames, then the end of the last frame, in `tags.time_base`."""
        return list(self._index.times)

    @property
    def has_clock(self) -> bool:
        """Whether the time stamps are those of the file, so that its sound fits to them."""
        return self._index.has_clock

    def planes(self, name: str) -> PlaneFormat:
        """Return the format of the planes that `read_planes` gives for FFmpeg's pixel format `name`."""
        found = find_format(name, self.tags.full_range)
        assert found is not None, name
        if self.depth is not None and found.bits == 16 and found.full_range:
            return dataclasses.replace(found, white=self.depth.white)
        return found

    def read_planes(self, start: int, stop: int, name: str) -> Iterator[list[np.ndarray]]:
        """Yield the (H, W) planes (luma, chroma, opacity) of the frames start..stop-1 in the pixel format `name`."""
        planes = self.planes(name)
        for frame in self._decode(start, stop):
            yield [plane.copy() for plane in self._planes_of(frame, planes)]

    def is_transparent(self) -> bool:
        """Return whether some pixel lets the background through; decodes up to the first one."""
        if not self.tags.has_alpha:
            return False
        name = self.tags.pixel_format
        largest = (1 << (16 if self.tags.depth > 8 else 8)) - 1
        for frame in self._decode(0, self.num_frames):
            if name.startswith("yuva"):
                planes = find_format(name, True)
                alpha, largest = read_plane(frame.planes[3], planes.dtype), planes.largest
            else:
                alpha = self._to_rgb(frame, "rgba64le" if self.tags.depth > 8 else "rgba")[..., 3]
            if int(alpha.min()) < largest:
                return True
        return False

    def _decode(self, start: int, stop: int) -> Iterator[VideoFrame]:
        """Yield the frames start..stop-1; `InputError` if one is missing, damaged or of another size or format."""
        path = self.files[0]
        for index, frame in enumerate(self._pictures(start, stop), start):
            if (frame.height, frame.width) != (self.height, self.width):
                raise InputError(f"{path}: the size changes at frame {index} from {self.width}x{self.height} "
                                 f"to {frame.width}x{frame.height}; cut the video there")
            if self.depth is not None and (largest := int(self._stored(frame).max())) > self.depth.white:
                raise InputError(f"{path}: frame {index} has the value {largest}, above the white of "
                                 f"{self.depth.white} ({self.depth.bits} bits); give the significant bits of all "
                                 "frames with --bits")
            yield frame

    def _pictures(self, start: int, stop: int) -> Iterator[VideoFrame]:
        """Yield what the decoder has for the frames start..stop-1: the same picture again where one stands in."""
        path, shown = self.files[0], self._index.shown
        frames, frame = self._decoder.frames_from(shown[start]), None
        for index in range(start, stop):
            while frame is None or frame.pts != shown[index]:
                frame = self._next_frame(frames, index)
                if frame.pts != shown[index] and not (self._is_tolerant and frame.pts < shown[index]):
                    raise InputError(f"{path}: frame {index} (time stamp {shown[index]}) is missing after decoding; "
                                     "the file is damaged, re-encode it")
                if frame.is_corrupt and frame.pts == shown[index]:
                    raise InputError(f"{path}: frame {index} is damaged; {MEND_DAMAGE}")
            yield frame

    def _next_frame(self, frames: Iterator[VideoFrame], index: int) -> VideoFrame:
        path = self.files[0]
        try:
            return next(frames)
        except StopIteration:
            raise InputError(f"{path}: ends before frame {index} of {self.num_frames}; "
                             "the file is truncated, copy it again") from None
        except av.error.FFmpegError as error:
            raise InputError(f"{path}: frame {index} cannot be decoded ({error.strerror}); {MEND_DAMAGE}") from None

    @property
    def _few(self) -> list[int]:
        return sorted({*range(0, self.num_frames, -(-self.num_frames // FEW)), self.num_frames - 1})

    def _few_pictures(self) -> Iterator[VideoFrame]:
        for number in self._few:
            yield next(self._pictures(number, number + 1))

    def _find_depth(self, path: Path, bits: int | None) -> list[str]:
        """Find out which stored value is white, describe it, and return a line about it."""
        tags, name = self.tags, self.tags.pixel_format
        if tags.depth == 16 and tags.full_range and (tags.is_rgb or name.startswith(("gray", "ya16"))):
            seen = Seen()
            for frame in self._few_pictures():
                seen = seen.with_values(self._stored(frame))
            self.depth = seen.depth if bits is None else _given_depth(bits, seen)
            white, significant = self.depth.white, self.depth.bits
        elif tags.depth > 16:
            raise InputError(f"{path}: has floating-point numbers ({name}); write them as a field (NetCDF)")
        elif bits not in (None, tags.depth):
            raise InputError(f"--bits {bits}: {path} says that it has {tags.depth} bits ({name}); leave it out")
        else:
            significant = tags.depth
            white = (1 << significant) - 1 if tags.full_range else (BLACK + EXTENT) << (significant - 8)
        self.description |= {"bits": significant, "white": white}
        how = "" if self.depth is None else " (as given)" if bits else f" (found in {len(self._few)} frames)"
        return [f"depth: {significant} bits in {name}{how}; white is {white}"]

    def _stored(self, frame: VideoFrame) -> np.ndarray:
        """Return the values of a frame of grey or RGB with 16 bits as they are stored."""
        if self.tags.is_rgb:
            return self._to_rgb(frame, "rgb48le")
        return self._planes_of(frame, find_format("gray16le", full_range=True))[0]

    def _has_luma_plane(self, frame: VideoFrame) -> bool:
        """Check whether the coded frame has Y of BT.601 as a plane, so that no colour conversion is needed."""
        name = frame.format.name
        if name.startswith("gray") and find_format(name, True):
            return True
        is_planar = name in WITH_LUMA_PLANE if self.tags.depth == 8 else find_format(name, True) is not None
        return is_planar and MATRICES.get(int(frame.colorspace), Colorspace.ITU601) == Colorspace.ITU601

    def _read_deep(self, frame: VideoFrame) -> np.ndarray:
        """Return a frame of more than 8 bits as (C, H, W) float32 grey levels."""
        if self._channels == "y" and self.depth is not None and not self.tags.is_rgb:
            return self.depth.to_grey(self._stored(frame))[None]
        if self._channels == "y" and self._has_luma_plane(frame):
            planes = self.planes(frame.format.name)
            return planes.to_grey(read_plane(frame.planes[0], planes.dtype)).clip(0, GREY)[None]
        if self.tags.is_rgb:
            rgb = (self.depth or full_depth(STORED)).to_grey(self._to_rgb(frame, "rgb48le"))
        else:
            name = frame.format.name
            known = find_format(name, True) is not None
            planes = self.planes(name if known else nearest_format(name, self.tags.depth, False)).whole
            stored = self._planes_of(frame, planes)
            stored = [*stored, *([np.full_like(stored[0], planes.grey_chroma)] * 2)][:3]  # of a grey frame
            rgb = rgb_of_planes(stored, planes, int(frame.colorspace)).transpose(1, 2, 0)
        return select_channels(np.ascontiguousarray(rgb), self._channels)

    def _planes_of(self, frame: VideoFrame, planes: PlaneFormat) -> list[np.ndarray]:
        """Return views of the planes of a frame in a format."""
        if frame.format.name.replace("yuvj", "yuv") != planes.name:
            frame = reformat(frame, planes.name, ColorRange.JPEG if planes.full_range else ColorRange.MPEG)
        return [read_plane(plane, planes.dtype) for plane in frame.planes]

    def _to_rgb(self, frame: VideoFrame, name: str) -> np.ndarray:
        return reformat(frame, name, ColorRange.JPEG).to_ndarray()


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
    bits : int, optional
        Significant bits of grey or RGB values that are stored in 16 bits; found from a few frames if not given.
    rate : float, optional
        Frames per second of a video without usable time stamps.
    damaged : {"refuse", "repeat"}
        Whether a damaged frame is an error, or the frame before it is shown again.

    Raises
    ------
    InputError
        If it is not a video, has no video stream or no decoder, is cut off or damaged, or if `bits` or `rate` do not
        fit to it.
    """
    check_input_file(path, "a video file")
    return VideoSource(path, channels, num_threads, bits, rate, damaged)


def _given_depth(bits: int, seen: Seen) -> Depth:
    """Return the depth of 16-bit values of which `bits` are significant, at the bottom or moved to the top."""
    if not 1 <= bits <= STORED:
        raise InputError(f"--bits: must be 1 to {STORED}, found {bits}")
    depth, unused = full_depth(bits), STORED - bits
    is_at_top = seen.largest > depth.white and seen.any_bits & ((1 << unused) - 1) == 0
    return Depth(bits, depth.white << unused) if is_at_top else depth


def _read_luma_plane(frame: VideoFrame) -> np.ndarray:
    """Return the luma plane as (H, W) uint8 Y in full range."""
    luma = read_plane(frame.planes[0], np.uint8)
    return luma.copy() if is_full_range(frame) else cv2.convertScaleAbs(cv2.subtract(luma, BLACK), alpha=255 / EXTENT)
