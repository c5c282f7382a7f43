"""Enlarges a field to twice or four times its resolution, frame by frame, in physical units."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hpc_vsr import __version__
from hpc_vsr.data.splits import REACH, WINDOW
from hpc_vsr.media.field_source import FieldSource, list_variables, open_field
from hpc_vsr.models.enlarge import Enlarge
from hpc_vsr.models.reduce import BLUR_REACH, Reduce, back_project
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.lock import only_writer
from hpc_vsr.system.progress import Progress
from hpc_vsr.upscale.settings import UpscaleSettings, fingerprint_of
from hpc_vsr.upscale.upscaler import Upscaler, check_size

FIELD_SUFFIXES = (".nc", ".nc4", ".cdf", ".h5", ".hdf5", ".he5", ".zarr")
FAR = 0.5  # of the training's range of values; farther beyond that range, the units are probably different
CACHED = 2 * WINDOW


def upscale_field(settings: UpscaleSettings, upscaler: Upscaler) -> None:
    """Upscale a variable of a field, unless that has been done before; see `hpc_vsr.media.field_sink.write_field`.

    Raises
    ------
    InputError
        If the network is for videos, the field cannot be read or has no such variable, or the output is something else.
    """
    plan = plan_field(settings, upscaler)
    with only_writer(settings.output.parent, f".{settings.output.name}.lock"):
        if plan.is_finished():
            print(f"{settings.output}: finished before", file=sys.stderr)
        else:
            _upscale(settings, upscaler, plan)


def _upscale(settings: UpscaleSettings, upscaler: Upscaler, plan: FieldPlan) -> None:
    from hpc_vsr.media.field_sink import write_field

    source, frames = plan.source, plan.frames
    project = _back_projection(settings, upscaler, source)
    print(format_plan(settings, upscaler, source, len(frames)), file=sys.stderr, flush=True)

    # frames of overlapping windows are read once
    @functools.lru_cache(maxsize=CACHED)
    def read(number: int) -> tuple[np.ndarray, np.ndarray | None]:
        return next(source.read(number, number + 1))

    with Progress(len(frames), "upscaling", "frame") as progress:
        def frame(number: int) -> np.ndarray:
            # at both ends the first or last frame stands in for those beyond
            around = [min(max(index, 0), source.num_frames - 1) for index in range(number - REACH, number + REACH + 1)]
            window = torch.from_numpy(np.stack([read(index)[0] for index in around], 1))
            out = project(upscaler.enlarge(window), window[:, REACH]).numpy()[0]
            # gaps of the input are gaps of the output
            valid = read(number)[1]
            if valid is not None:
                out[~valid.repeat(upscaler.scale, 0).repeat(upscaler.scale, 1)] = np.nan
            progress.advance()
            return out

        steps = f", {settings.back_projection} steps of back-projection" if settings.back_projection else ""
        left_out = write_field(
            settings.output, source, frames, upscaler.scale, frame,
            f"{source.channels[0]} enlarged {upscaler.scale} times by hpc-vsr {__version__} with {upscaler.name} "
            f"({upscaler.trained.settings.name}, checkpoint {upscaler.trained.sha256[:12]}){steps}", plan.fingerprint)
    if left_out:
        print(f"{settings.output}: without {', '.join(left_out)} of {settings.input.name}, on its grid and not "
              "enlarged", file=sys.stderr)


@dataclass(frozen=True)
class FieldPlan:
    """The input and the output of an upscaling.

    Attributes
    ----------
    source : FieldSource
    frames : range
        The frames to upscale.
    output : Path
    fingerprint : str
        Fingerprint of the input (names, sizes and times of its files), the network and the settings.
    """

    source: FieldSource
    frames: range
    output: Path
    fingerprint: str

    def is_finished(self) -> bool:
        """Return whether the output is there already; raise `InputError` if something else is there."""
        from hpc_vsr.media.field_sink import is_written

        return is_written(self.output, self.fingerprint)


def plan_field(settings: UpscaleSettings, upscaler: Upscaler) -> FieldPlan:
    """Check the input and the output, without writing anything."""
    try:
        import hpc_vsr.media.field_sink  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(f"fields need {error.name}; install it with 'pip install hpc-vsr[fields]'") from None
    if upscaler.for_video or upscaler.channels != 1:
        raise InputError(f"{upscaler.name}: was trained on video; {settings.input} wants a network for fields")
    source = open_field(settings.input, settings.variable or _only_variable(settings.input))
    check_size(source.height, source.width, str(settings.input))
    frames = settings.frames(source.num_frames)
    _back_projection(settings, upscaler, source)
    inside = [file for path in source.files for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in inside]
    identity = fingerprint_of(settings, files=files, network=upscaler.trained.sha256)
    plan = FieldPlan(source, frames, settings.output, identity)
    if not plan.is_finished():
        _warn_of_range(source, frames, upscaler)
    return plan


def format_plan(settings: UpscaleSettings, upscaler: Upscaler, source: FieldSource, num_frames: int) -> str:
    """Return one line that says what will be done."""
    enlarged = f"{upscaler.scale * source.width}x{upscaler.scale * source.height}"
    return (f"{settings.output}: {num_frames} frames of {source.channels[0]} in {settings.input}, "
            f"{source.width}x{source.height} to {enlarged}; {upscaler.name} in {upscaler.precision} on "
            f"{upscaler.device.type}; {upscaler.state_memory(source.height, source.width)}")


def _only_variable(path: Path) -> str:
    names = list_variables(path)
    if len(names) != 1:
        raise InputError(f"--variable is missing: {path} has {', '.join(names) or 'no variable over (time, y, x)'}")
    return names[0]


def _back_projection(settings: UpscaleSettings, upscaler: Upscaler, source: FieldSource):
    """Return a function of (SR, LR) that makes the SR agree with the LR; without steps it returns the SR unchanged."""
    if not settings.back_projection:
        return lambda sr, lr: sr
    terms = upscaler.trained.terms
    if BLUR_REACH * terms.sigma >= terms.scale * min(source.height, source.width):
        raise InputError(f"--back_projection: frames of {source.width}x{source.height} are too small for a blur of "
                         f"{terms.sigma:g} pixels; set it to 0")
    reduce, bicubic = Reduce(terms.scale, terms.sigma), Enlarge("bicubic", terms.scale)

    def project(sr: torch.Tensor, lr: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return back_project(sr[None], lr[None], reduce, bicubic, settings.back_projection)[0]
    return project


def _warn_of_range(source: FieldSource, frames: range, upscaler: Upscaler) -> None:
    """Print a warning if the values of the first frame are far from those that the network was trained on."""
    terms = upscaler.trained.terms
    values = next(source.read(frames.start, frames.start + 1))[0]
    low, high = float(values.min()), float(values.max())
    if low < terms.offset - FAR * terms.extent or high > terms.offset + (1 + FAR) * terms.extent \
            or high - low < 0.01 * terms.extent:
        print(f"warning: {source.channels[0]} is {low:.3g} to {high:.3g} in its first frame, and {upscaler.name} was "
              f"trained on {terms.offset:.3g} to {terms.offset + terms.extent:.3g}; are the units the same?",
              file=sys.stderr)
