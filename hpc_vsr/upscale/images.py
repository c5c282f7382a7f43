"""Enlarges a folder of images to twice or four times their size, one output for each image, with the same names."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hpc_vsr.data.splits import REACH
from hpc_vsr.media.chroma import enlarge_plane
from hpc_vsr.media.image_source import ImageSource, open_images
from hpc_vsr.media.planes import GREY
from hpc_vsr.models.settings import Choice
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import create_folder, remove_left_together, write_whole
from hpc_vsr.system.lock import only_writer
from hpc_vsr.system.mpi import on_main_rank, ranks_on_node
from hpc_vsr.system.progress import Progress
from hpc_vsr.upscale.frames import enlarge_window
from hpc_vsr.upscale.record import join_upscaling
from hpc_vsr.upscale.settings import UpscaleSettings, fingerprint_of
from hpc_vsr.upscale.upscaler import Upscaler, check_size, warn_of_blur
from hpc_vsr.upscale.windows import CONTEXT, spread, windows

RECORD = "upscale.json"
PEAK = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
LOSSLESS = (".png", ".tif", ".tiff")


def upscale_images(settings: UpscaleSettings, upscaler: Upscaler, comm: Any) -> bool:
    """Upscale a folder of images, all ranks together inside `abort_together`; return whether all are there now.

    Raises
    ------
    InputError
        If the folder has no images or they are not alike, the network is not for videos, or the output folder holds
        something else.
    """
    # all ranks agree on the input, the precision and the network's reach
    source, names, identity = on_main_rank(comm, lambda: plan_images(settings, upscaler))
    upscaler.choice = on_main_rank(comm, lambda: _open_folder(settings.output, identity, upscaler))
    upscaler.reach = on_main_rank(comm, lambda: upscaler.find_reach(source.height, source.width))
    # one lock for each --part, so that the tasks of a job array can work at the same time
    index, count = settings.share()
    lock = f".lock-{index + 1}-of-{count}"
    with only_writer(settings.output, lock) if comm.rank == 0 else contextlib.nullcontext():
        missing = on_main_rank(comm, lambda: _missing(settings.output, names))
        neighbours = ranks_on_node(comm)
        if comm.rank == 0:
            before = len(names) - len(missing)
            print(format_plan(settings, upscaler, source, len(names), neighbours)
                  + (f"; {before} finished before" if before else ""), file=sys.stderr, flush=True)
        # each rank of each task has a fixed stretch of all images and makes the missing ones in it
        share, number = count * comm.size, index * comm.size + comm.rank
        every = list(names)  # not the missing ones, whose number shrinks while other tasks work
        mine = sorted({*missing} & {*every[number * len(every) // share : (number + 1) * len(every) // share]})
        with Progress(len(mine), "upscaling", "image", shown=comm.rank == 0) as progress:
            for run in _runs(mine):
                for frame, image in zip(run, _enlarged(source, run, settings, upscaler), strict=True):
                    _write_image(settings.output / names[frame], image)
                    progress.advance()
        # when all ranks are done, see whether other tasks have finished too
        comm.allgather(None)
        complete = not on_main_rank(comm, lambda: _missing(settings.output, names))
        if complete:
            on_main_rank(comm, lambda: remove_left_together(settings.output / RECORD))
        return complete


def plan_images(settings: UpscaleSettings, upscaler: Upscaler) -> tuple[ImageSource, dict[int, str], str]:
    """Check the input and the output, without writing anything.

    Returns the source, the output name of each frame to upscale, and the fingerprint of this upscaling.
    """
    if not upscaler.for_video:
        raise InputError(f"{upscaler.name}: was trained on a field; {settings.input} wants a network for videos")
    source = open_images(settings.input)
    check_size(source.height, source.width, str(settings.input))
    if source.stored not in PEAK:
        raise InputError(f"{source.files[0]}: has {source.stored} pixels, whose white is not known; "
                         "write 8 or 16 bit, or use a NetCDF file for physical values")
    if settings.output.resolve() == settings.input.resolve():
        raise InputError(f"{settings.output}: is the input; choose another --output")
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in source.files]
    frames = settings.frames(source.num_frames)
    names = {frame: _name_of(source.files[frame]) for frame in frames}
    if len(set(names.values())) < len(names):
        raise InputError(f"{settings.input}: has images that differ in their endings alone; rename them")
    identity = fingerprint_of(settings, files=files, network=upscaler.trained.sha256)
    warning = warn_of_blur(upscaler, _sample(source, frames), str(settings.input))
    if warning:
        print(warning, file=sys.stderr)
    return source, names, identity


def _name_of(path: Path) -> str:
    return path.name if path.suffix.lower() in LOSSLESS else f"{path.stem}.png"


def _sample(source: ImageSource, frames: range) -> Iterator[np.ndarray]:
    for number in spread(frames):
        for image in source.images(number, number + 1):
            yield image.mean(2) * (GREY / PEAK[image.dtype])


def _open_folder(folder: Path, identity: str, upscaler: Upscaler) -> Choice:
    """Create the output folder, or check that it belongs to this upscaling; return the precision it was begun in."""
    record = folder / RECORD
    if not record.exists():
        if folder.exists() and (not folder.is_dir() or any(path.name[0] != "." for path in folder.iterdir())):
            raise InputError(f"{folder}: exists and is not empty; choose another --output")
        create_folder(folder)
    return join_upscaling(record, identity, {}, upscaler,
                          f"{folder}: holds another upscaling; delete it or choose another --output")


def _missing(folder: Path, names: dict[int, str]) -> list[int]:
    return [frame for frame, name in names.items() if not (folder / name).exists()]


def _runs(frames: list[int]) -> Iterator[range]:
    """Yield stretches of consecutive numbers."""
    for _, group in itertools.groupby(enumerate(frames), lambda pair: pair[1] - pair[0]):
        stretch = [frame for _, frame in group]
        yield range(stretch[0], stretch[-1] + 1)


def _enlarged(source: ImageSource, frames: range, settings: UpscaleSettings, upscaler: Upscaler
              ) -> Iterator[np.ndarray]:
    """Yield (s H, s W, 3) RGB images, or (s H, s W) if the images are gray, in the type of the input images."""
    peak, scale = PEAK[source.stored], upscaler.scale
    first, last = max(0, frames.start - CONTEXT), min(source.num_frames, frames.stop + CONTEXT)
    pictures = ((image / np.float32(peak)).astype(np.float32) for image in source.images(first, last))
    luma_of = (lambda picture: _to_ycc(picture)[..., 0] * GREY) if settings.find_cuts else None
    for window in windows(pictures, first, frames, source.num_frames, luma_of):
        # the network enlarges RGB or luma; with luma, Lanczos interpolation enlarges chroma
        if upscaler.channels == 3:
            stacked = np.stack([picture.transpose(2, 0, 1) for picture in window], 1) * np.float32(GREY)
            rgb = enlarge_window(stacked, upscaler, settings.compare).transpose(1, 2, 0) / GREY
        else:
            luma = np.stack([_to_ycc(picture)[..., 0] for picture in window])[None] * np.float32(GREY)
            out = enlarge_window(luma, upscaler, settings.compare)[0] / np.float32(GREY)
            chroma = [enlarge_plane(np.ascontiguousarray(plane), out.shape, scale)
                      for plane in np.moveaxis(_to_ycc(window[REACH])[..., 1:], 2, 0)]
            rgb = cv2.cvtColor(np.dstack([out, *chroma]), cv2.COLOR_YCrCb2RGB)
        image = np.rint(np.clip(rgb, 0, 1) * peak).astype(source.stored)
        yield image[..., 0] if source.is_gray else image


def _to_ycc(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)


def _write_image(path: Path, image: np.ndarray) -> None:
    coded = cv2.imencode(path.suffix, image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    with write_whole(path) as temporary:
        temporary.write_bytes(coded.tobytes())


def format_plan(settings: UpscaleSettings, upscaler: Upscaler, source: ImageSource, num_images: int,
                processes: int = 1) -> str:
    """Return one line that says what will be done."""
    return (f"{settings.output}: {num_images} images of {settings.input}, {source.width}x{source.height} to "
            f"{upscaler.scale * source.width}x{upscaler.scale * source.height}; {upscaler.name} in "
            f"{upscaler.precision} on {upscaler.device.type}; "
            f"{upscaler.state_memory(source.height, source.width, processes)}")
