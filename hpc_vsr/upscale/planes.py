"""Enlarges the frames of a video to the planes of luma and chroma that are encoded."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from hpc_vsr.media.chroma import enlarge_plane
from hpc_vsr.media.planes import PlaneFormat, without_alpha
from hpc_vsr.media.video_sink import Encoding, planes_of_rgb
from hpc_vsr.media.video_source import VideoSource
from hpc_vsr.system.threads import read_ahead
from hpc_vsr.upscale.errors import to_grey
from hpc_vsr.upscale.frames import show_comparison
from hpc_vsr.upscale.settings import UpscaleSettings
from hpc_vsr.upscale.stream import READ_AHEAD, Frame, enlarge_stream
from hpc_vsr.upscale.upscaler import Upscaler
from hpc_vsr.upscale.windows import CONTEXT, to_luma, windows

BETWEEN = ("mjpeg", "mpeg1video", "png")  # codecs whose chroma samples lie between the luma pixels


def enlarge_planes(source: VideoSource, frames: range, encoding: Encoding, settings: UpscaleSettings,
                   upscaler: Upscaler) -> Iterator[list[np.ndarray]]:
    """Yield the planes (luma, chroma, opacity) of the upscaled frames as they are encoded, or their errors as one.

    One thread decodes ahead, and the upscaler's workers compute; closing the iterator ends them.
    """
    is_rgb, planes, scale = upscaler.channels == 3, encoding.planes, upscaler.scale
    # what the workers make of an enlarged frame
    def finish(enlarged: np.ndarray, frame: Frame) -> list[np.ndarray]:
        if upscaler.trained.predicts_error:
            return [to_grey(enlarged)]
        if settings.compare:
            show_comparison(enlarged, frame.values)
        if is_rgb:  # the network enlarges all three channels, and the result becomes luma and chroma
            made, opacity = planes_of_rgb(enlarged, _without_alpha(source, encoding)), frame.rest[1:]
        else:  # the network enlarges luma, and interpolation enlarges chroma
            luma, chroma, opacity = frame.rest[0], frame.rest[1:3], frame.rest[3:]
            made = [planes.to_code(enlarged[0], luma), *(enlarge_chroma(plane, encoding, scale) for plane in chroma)]
        return [*made, *(_enlarge_alpha(plane, encoding, scale) for plane in opacity)]

    first, last = max(0, frames.start - CONTEXT), min(source.num_frames, frames.stop + CONTEXT)
    pictures = (_read_rgb if is_rgb else _read_luma)(source, first, last, encoding)
    luma_of = (lambda frame: to_luma(frame.rest[0]) if is_rgb else frame.values[0]) if settings.find_cuts else None
    made = windows(pictures, first, frames, source.num_frames, luma_of, source.facts.breaks)
    with contextlib.closing(read_ahead(made, READ_AHEAD)) as ahead:
        yield from enlarge_stream(ahead, upscaler, finish)


def _read_luma(source: VideoSource, first: int, last: int, encoding: Encoding) -> Iterator[Frame]:
    """Yield frames whose `rest` is all their planes."""
    for picture in source.read_planes(first, last, encoding.planes.name):
        yield Frame(encoding.planes.to_grey(picture[0])[None], picture)


def _read_rgb(source: VideoSource, first: int, last: int, encoding: Encoding) -> Iterator[Frame]:
    """Yield frames whose `rest` is (C, h, w) RGB as decoded and, if the output has one, the plane of opacity."""
    name = encoding.planes.name
    opacity = (picture[3:] for picture in source.read_planes(first, last, name)) if encoding.planes.has_alpha \
        else itertools.repeat([])
    for (picture, _), plane in zip(source.read(first, last), opacity, strict=False):
        yield Frame(picture.astype(np.float32), [picture, *plane])


def _without_alpha(source: VideoSource, encoding: Encoding) -> Encoding:
    planes = encoding.planes
    return dataclasses.replace(encoding, planes=source.planes(without_alpha(planes.name))) if planes.has_alpha \
        else encoding


def _enlarge_alpha(plane: np.ndarray, encoding: Encoding, scale: int) -> np.ndarray:
    return np.minimum(enlarge_plane(plane, (encoding.height, encoding.width), scale), encoding.planes.largest)


def enlarge_chroma(plane: np.ndarray, encoding: Encoding, scale: int) -> np.ndarray:
    """Return the (h, w) chroma of an LR frame at the size of `encoding`, by Lanczos interpolation."""
    planes: PlaneFormat = encoding.planes
    size = -(-encoding.height // planes.rows), -(-encoding.width // planes.columns)
    enlarged = enlarge_plane(plane, size, scale, (planes.rows, planes.columns), encoding.tags.codec not in BETWEEN)
    return np.minimum(enlarged, planes.largest)
