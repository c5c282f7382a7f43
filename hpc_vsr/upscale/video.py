"""Enlarges a video to twice or four times its size, in segments that are encoded one by one and joined at the end.

The limits of a segment depend only on the settings, and its frames do not depend on other segments. So any number of
tasks make the same file, and after a kill only the missing segments are made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpc_vsr import __version__
from hpc_vsr.data.splits import REACH
from hpc_vsr.media.chroma import enlarge_plane
from hpc_vsr.media.planes import PlaneFormat, find_format, nearest_format
from hpc_vsr.media.video_sink import (
    QUALITY,
    Encoding,
    check_container,
    choose_codec,
    join_segments,
    planes_of_rgb,
    read_comment,
    write_segment,
)
from hpc_vsr.media.video_source import MATRICES, VideoSource, open_video
from hpc_vsr.models.settings import Choice
from hpc_vsr.system.errors import Failed, InputError
from hpc_vsr.system.files import check_free_space, check_input_file, create_folder, is_valid, record_checksum, sha256
from hpc_vsr.system.lock import only_writer
from hpc_vsr.system.mpi import on_main_rank, ranks_on_node
from hpc_vsr.system.progress import Progress
from hpc_vsr.upscale.frames import enlarge_window
from hpc_vsr.upscale.record import join_upscaling
from hpc_vsr.upscale.settings import UpscaleSettings, fingerprint_of
from hpc_vsr.upscale.upscaler import Upscaler, check_size, warn_of_blur
from hpc_vsr.upscale.windows import CONTEXT, spread, to_luma, windows

PLAN = "plan.json"
BT601 = 6  # the matrix for input that was RGB; code of ISO/IEC 23091-2
BETWEEN = ("mjpeg", "mpeg1video", "png")  # codecs whose chroma samples lie between the luma pixels


@dataclass(frozen=True)
class VideoPlan:
    """Everything that the tasks must agree on.

    Attributes
    ----------
    source : VideoSource
    encoding : Encoding
    frames : range
        The frames to upscale.
    segments : list of range
    folder : Path
        Folder of the segments until they are joined.
    fingerprint : str
        Fingerprint of the input, the network and the settings.
    finished : bool
        Whether the output is there already.
    """

    source: VideoSource
    encoding: Encoding
    frames: range
    segments: list[range]
    folder: Path
    fingerprint: str
    finished: bool

    def segment_path(self, index: int) -> Path:
        return self.folder / f"segment-{index:05d}{self.encoding.suffix}"


def upscale_video(settings: UpscaleSettings, upscaler: Upscaler, comm: Any) -> bool:
    """Upscale a video, all ranks together inside `abort_together`; return whether the output is complete now."""
    plan = on_main_rank(comm, lambda: plan_video(settings, upscaler))
    if plan.finished:
        if comm.rank == 0:
            shutil.rmtree(plan.folder, ignore_errors=True)  # left if a kill came after the joining
            print(f"{settings.output}: finished before", file=sys.stderr)
        return True
    # all ranks agree on the precision, the network's reach and the missing segments
    upscaler.choice = on_main_rank(comm, lambda: _open_folder(plan, settings, upscaler))
    upscaler.reach = on_main_rank(comm, lambda: upscaler.find_reach(plan.source.height, plan.source.width))
    missing = on_main_rank(comm, lambda: _missing(plan))
    neighbours = ranks_on_node(comm)
    if comm.rank == 0:
        before = len(plan.segments) - len(missing)
        print(format_plan(plan, settings, upscaler, neighbours) + (f"; {before} finished before" if before else "")
              + f"; {comm.size} rank{'s' if comm.size > 1 else ''}", file=sys.stderr, flush=True)
    # segments are dealt in turn to the tasks (--part), and those of a task to its ranks
    index, count = settings.share()
    mine = [number for number in missing if number % count == index][comm.rank :: comm.size]
    label = "upscaling" if comm.size == 1 else f"upscaling (rank 0 of {comm.size})"
    with Progress(sum(len(plan.segments[number]) for number in mine), label, "frame", shown=comm.rank == 0) as progress:
        for number in mine:
            _make_segment(plan, number, settings, upscaler, progress)
    # when all ranks are done, join the segments
    comm.allgather(None)
    return on_main_rank(comm, lambda: _finish(plan, settings, upscaler))


def plan_video(settings: UpscaleSettings, upscaler: Upscaler) -> VideoPlan:
    """Check the input and the output and plan the work, without writing anything.

    Raises
    ------
    InputError
        If the input is no video or too small, the network is not for videos, the output exists and is something else,
        or its container cannot hold what it must.
    """
    check_input_file(settings.input, "a video")
    if not upscaler.for_video:
        raise InputError(f"{upscaler.name}: was trained on a field; {settings.input} wants a network for videos")
    source = open_video(settings.input, "rgb" if upscaler.channels == 3 else "y")
    check_size(source.height, source.width, str(settings.input))
    # the output has the pixel format of the input, or the nearest one that can be written
    tags = source.tags
    name = tags.pixel_format
    if find_format(name, tags.full_range) is None:
        name = nearest_format(name, tags.depth, tags.is_rgb)
    codec, name = choose_codec(settings.codec, name)
    if tags.is_rgb and tags.matrix not in MATRICES:  # then the one with which its luma is made
        tags = dataclasses.replace(tags, matrix=BT601)
    if settings.quality is not None and codec not in QUALITY:
        raise InputError(f"--quality: {codec} has none; it is for {', '.join(QUALITY)}")
    encoding = Encoding(codec, QUALITY.get(codec) if settings.quality is None else settings.quality,
                        source.planes(name), upscaler.scale * source.height, upscaler.scale * source.width, tags)
    left_out = check_container(settings.output, codec, settings.input)
    frames = settings.frames(source.num_frames)
    segments = [frames[start : start + settings.segment] for start in range(0, len(frames), settings.segment)]
    identity = fingerprint_of(settings, source=sha256(settings.input), network=upscaler.trained.sha256,
                              encoded=[codec, name, encoding.quality])
    # an existing output must come from this same upscaling, whose fingerprint is in its comment
    finished = False
    if settings.output.exists():
        if identity not in read_comment(settings.output):
            raise InputError(f"{settings.output}: exists and is not what this command makes; delete it or choose "
                             "another --output")
        finished = True
    # tell what will be lost or may look wrong
    for what in left_out:
        print(f"{settings.input}: {what} is left out", file=sys.stderr)
    if tags.interlaced:
        print(f"{settings.input}: is interlaced, and the network will sharpen its combs; deinterlace it first, such as "
              f"with 'ffmpeg -i {settings.input.name} -vf bwdif ...'", file=sys.stderr)
    warning = None if finished else warn_of_blur(upscaler, _sample(source, frames), str(settings.input))
    if warning:
        print(warning, file=sys.stderr)
    folder = settings.output.with_name(f"{settings.output.name}.parts")
    return VideoPlan(source, encoding, frames, segments, folder, identity, finished)


def _sample(source: VideoSource, frames: range) -> Iterator[np.ndarray]:
    """Yield the luma of a few frames."""
    for number in spread(frames):
        for picture, _ in source.read(number, number + 1):
            yield picture.mean(0)


def _open_folder(plan: VideoPlan, settings: UpscaleSettings, upscaler: Upscaler) -> Choice:
    """Create the segments' folder, or check that it belongs to this plan; return the precision it was begun in."""
    path = plan.folder / PLAN
    if not path.exists():
        if not settings.output.parent.is_dir():
            raise InputError(f"{settings.output.parent}: is not a folder; make it or choose another --output")
        create_folder(plan.folder)
        check_free_space(plan.folder, settings.input.stat().st_size)
    return join_upscaling(path, plan.fingerprint,
                          {"frames": [plan.frames.start, plan.frames.stop], "segment": settings.segment}, upscaler,
                          f"{plan.folder}: holds segments of another upscaling into {settings.output}; delete it or "
                          "give the settings, the input and the network that it was begun with")


def _missing(plan: VideoPlan) -> list[int]:
    return [number for number in range(len(plan.segments)) if not is_valid(plan.segment_path(number))]


def _make_segment(plan: VideoPlan, number: int, settings: UpscaleSettings, upscaler: Upscaler, progress: Progress
                  ) -> None:
    """Write one segment and its checksum, unless another task has done so meanwhile."""
    frames, path = plan.segments[number], plan.segment_path(number)
    if is_valid(path) or _is_finished(plan, settings):
        return
    with only_writer(plan.folder, f".segment-{number:05d}.lock") as lock:
        pictures = upscaled_planes(plan, frames, settings, upscaler)

        # frames flow from the decoder through the network to the encoder, and the lock is checked at each
        def checked() -> Iterator[list[np.ndarray]]:
            for planes in pictures:
                lock.check()
                progress.advance()
                yield planes
        write_segment(path, checked(), plan.encoding)
        record_checksum(path)


def upscaled_planes(plan: VideoPlan, frames: range, settings: UpscaleSettings, upscaler: Upscaler
                    ) -> Iterator[list[np.ndarray]]:
    """Yield the luma and chroma planes of the upscaled frames, as they are encoded."""
    source, encoding = plan.source, plan.encoding
    first, last = max(0, frames.start - CONTEXT), min(source.num_frames, frames.stop + CONTEXT)
    # a network for RGB enlarges all three channels; the result becomes luma and chroma
    if upscaler.channels == 3:
        pictures = (picture for picture, _ in source.read(first, last))
        for window in windows(pictures, first, frames, source.num_frames, to_luma if settings.find_cuts else None):
            out = _enlarge_rgb(window, settings, upscaler)
            yield planes_of_rgb(out, encoding)
        return
    # a network for luma enlarges luma; interpolation enlarges chroma
    planes = encoding.planes
    pictures = source.read_planes(first, last, planes.name)
    luma_of = (lambda picture: planes.to_grey(picture[0])) if settings.find_cuts else None
    for window in windows(pictures, first, frames, source.num_frames, luma_of):
        luma = np.stack([planes.to_grey(picture[0]) for picture in window])
        grey = enlarge_window(luma[None], upscaler, settings.compare)[0]
        centre = window[REACH]
        yield [planes.to_code(grey, centre[0]), *(_enlarge_chroma(plane, encoding, upscaler.scale)
                                                  for plane in centre[1:])]


def _enlarge_rgb(window: Sequence[np.ndarray], settings: UpscaleSettings, upscaler: Upscaler) -> np.ndarray:
    stacked = np.stack(window, 1).astype(np.float32)
    return np.rint(enlarge_window(stacked, upscaler, settings.compare).clip(0, 255)).astype(np.uint8)


def _enlarge_chroma(plane: np.ndarray, encoding: Encoding, scale: int) -> np.ndarray:
    planes: PlaneFormat = encoding.planes
    size = -(-encoding.height // planes.rows), -(-encoding.width // planes.columns)
    enlarged = enlarge_plane(plane, size, scale, (planes.rows, planes.columns), encoding.tags.codec not in BETWEEN)
    return np.minimum(enlarged, planes.largest)


def _finish(plan: VideoPlan, settings: UpscaleSettings, upscaler: Upscaler) -> bool:
    """Join the segments, unless some are missing or --part is given; return whether the output is complete."""
    if _is_finished(plan, settings):
        shutil.rmtree(plan.folder, ignore_errors=True)
        return True
    missing = _missing(plan)
    if missing:
        if settings.part is None:
            raise Failed(f"{plan.folder}: segment {missing[0]} is missing after all; run the same command again")
        print(f"{plan.folder}: {len(plan.segments) - len(missing)} of {len(plan.segments)} segments are there; the "
              "command without --part makes what is missing and joins them", file=sys.stderr)
        return False
    if settings.part is not None:
        print(f"{plan.folder}: all segments are there; the command without --part joins them", file=sys.stderr)
        return False
    comment = (f"upscaled {upscaler.scale} times by hpc-vsr {__version__} with {upscaler.name} "
               f"({upscaler.trained.settings.name}, {upscaler.trained.sha256[:12]}); {plan.fingerprint}")
    # several tasks may get here at the same time, but only one joins
    with only_writer(plan.folder, ".join.lock"):
        if _is_finished(plan, settings):  # by another task, while this one waited
            return True
        paths = [plan.segment_path(number) for number in range(len(plan.segments))]
        times = plan.source.times[plan.frames.start : plan.frames.stop + 1]
        join_segments(settings.output, paths, plan.encoding, settings.input, times,
                      len(plan.frames) == plan.source.num_frames, comment)
    while plan.folder.exists():
        with contextlib.suppress(FileNotFoundError):  # a task that came later removes it too
            shutil.rmtree(plan.folder)
    return True


def _is_finished(plan: VideoPlan, settings: UpscaleSettings) -> bool:
    return settings.output.exists() and plan.fingerprint in read_comment(settings.output)


def format_plan(plan: VideoPlan, settings: UpscaleSettings, upscaler: Upscaler, processes: int = 1) -> str:
    """Return one line that says what will be done."""
    encoding, source = plan.encoding, plan.source
    quality = "" if encoding.quality is None else f" at quality {encoding.quality}"
    return (f"{settings.output}: {len(plan.frames)} frames of {settings.input}, {source.width}x{source.height} to "
            f"{encoding.width}x{encoding.height}, {encoding.codec} {encoding.planes.name}{quality}; {upscaler.name} in "
            f"{upscaler.precision} on {upscaler.device.type}; {len(plan.segments)} segment"
            f"{'s' * (len(plan.segments) != 1)}; "
            f"{upscaler.state_memory(source.height, source.width, processes)}")
