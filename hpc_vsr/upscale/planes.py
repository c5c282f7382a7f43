"""Enlarges the frames of a video to the planes of luma and chroma that are encoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from hpc_vsr.data.splits import REACH
from hpc_vsr.media.chroma import enlarge_plane
from hpc_vsr.media.planes import PlaneFormat, without_alpha
from hpc_vsr.media.video_sink import Encoding, planes_of_rgb
from hpc_vsr.media.video_source import VideoSource
from hpc_vsr.upscale.frames import enlarge_window
from hpc_vsr.upscale.settings import UpscaleSettings
from hpc_vsr.upscale.upscaler import Upscaler
from hpc_vsr.upscale.windows import CONTEXT, to_luma, windows

BETWEEN = ("mjpeg", "mpeg1video", "png")  # codecs whose chroma samples lie between the luma pixels


def enlarge_planes(source: VideoSource, frames: range, encoding: Encoding, settings: UpscaleSettings,
                   upscaler: Upscaler) -> Iterator[list[np.ndarray]]:
    """Yield the planes (luma, chroma, opacity) of the upscaled frames, as they are encoded."""
    first, last = max(0, frames.start - CONTEXT), min(source.num_frames, frames.stop + CONTEXT)
    # a network for RGB enlarges all three channels; the result becomes luma and chroma
    if upscaler.channels == 3 and encoding.planes.has_alpha:
        opacity = source.read_planes(frames.start, frames.stop, encoding.planes.name)
        coloured = dataclasses.replace(encoding, planes=source.planes(without_alpha(encoding.planes.name)))
        for colours, picture in zip(enlarge_planes(source, frames, coloured, settings, upscaler), opacity, strict=True):
            yield [*colours, _enlarge_alpha(picture[3], encoding, upscaler.scale)]
        return
    if upscaler.channels == 3:
        pictures = (picture for picture, _ in source.read(first, last))
        for window in windows(pictures, first, frames, source.num_frames, to_luma if settings.find_cuts else None,
                              source.facts.breaks):
            rgb = enlarge_window(np.stack(window, 1).astype(np.float32), upscaler, settings.compare)
            yield planes_of_rgb(rgb, encoding)
        return
    # a network for luma enlarges luma; interpolation enlarges chroma
    planes = encoding.planes
    pictures = source.read_planes(first, last, planes.name)
    luma_of = (lambda picture: planes.to_grey(picture[0])) if settings.find_cuts else None
    for window in windows(pictures, first, frames, source.num_frames, luma_of, source.facts.breaks):
        luma = np.stack([planes.to_grey(picture[0]) for picture in window])
        grey = enlarge_window(luma[None], upscaler, settings.compare)[0]
        centre = window[REACH]
        yield [planes.to_code(grey, centre[0]),
               *(_enlarge_chroma(plane, encoding, upscaler.scale) for plane in centre[1:3]),
               *(_enlarge_alpha(plane, encoding, upscaler.scale) for plane in centre[3:])]


def _enlarge_alpha(plane: np.ndarray, encoding: Encoding, scale: int) -> np.ndarray:
    return np.minimum(enlarge_plane(plane, (encoding.height, encoding.width), scale), encoding.planes.largest)


def _enlarge_chroma(plane: np.ndarray, encoding: Encoding, scale: int) -> np.ndarray:
    planes: PlaneFormat = encoding.planes
    size = -(-encoding.height // planes.rows), -(-encoding.width // planes.columns)
    enlarged = enlarge_plane(plane, size, scale, (planes.rows, planes.columns), encoding.tags.codec not in BETWEEN)
    return np.minimum(enlarged, planes.largest)
