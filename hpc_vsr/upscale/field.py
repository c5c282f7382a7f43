"""Enlarges a field to 2, 3 or 4 times its resolution, frame by frame, in physical units.

It is one unit of work: one rank writes one file.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from hpc_vsr import __version__
from hpc_vsr.data.splits import WINDOW, piece_around, window_around
from hpc_vsr.media.field_several import FieldsSource
from hpc_vsr.media.field_source import FieldSource
from hpc_vsr.models.enlarge import Enlarge
from hpc_vsr.models.reduce import BLUR_REACH, Reduce, back_project
from hpc_vsr.models.settings import Choice
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.lock import only_writer
from hpc_vsr.system.progress import Progress
from hpc_vsr.upscale.checks import follow_input, warn_of_missing, warn_of_range, warn_of_units
from hpc_vsr.upscale.settings import UpscaleSettings, fingerprint_of
from hpc_vsr.upscale.stream import Frame, enlarge_stream
from hpc_vsr.upscale.upscaler import Upscaler

CACHED = 2 * WINDOW


@dataclass(frozen=True)
class FieldUpscaling:
    """The upscaling of one variable of a field, or several; see `hpc_vsr.upscale.loop.Upscaling`.

    Attributes
    ----------
    settings : UpscaleSettings
    source : FieldSource or FieldsSource
    frames : range
        The frames to upscale.
    fingerprint : str
        Fingerprint of the input (names, sizes and times of its files), the network and the settings.
    """

    settings: UpscaleSettings
    source: FieldSource | FieldsSource
    frames: range
    fingerprint: str

    kind: ClassVar[str] = "a field"
    is_field: ClassVar[bool] = True
    unused: ClassVar[tuple[str, ...]] = ("compare", "part", "codec", "quality", "segment")
    item: ClassVar[str] = "frame"
    coding: ClassVar[str] = ""
    pieces: ClassVar[str] = ""

    @classmethod
    def plan(cls, settings: UpscaleSettings, upscaler: Upscaler, source: FieldSource | FieldsSource
             ) -> FieldUpscaling:
        """Check the input and the output; warn if the values of the input are far from those of the training."""
        try:
            import hpc_vsr.media.field_sink  # noqa: F401
        except ModuleNotFoundError as error:
            raise InputError(f"fields need {error.name}; install it with 'pip install hpc-vsr[fields]'") from None
        frames = settings.frames(source.num_frames)
        settings = follow_input(settings, upscaler, None, str(settings.input))
        _back_projection(settings, upscaler, source)
        inside = [file for path in source.files for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
        files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in inside]
        identity = fingerprint_of(settings, files=files, network=upscaler.trained.sha256)
        work = cls(settings, source, frames, identity)
        if not work.is_finished() and not upscaler.trained.predicts_error:
            first = next((number for number in frames if number not in source.facts.empty), None)
            if first is None:
                raise InputError(f"{settings.input}: {' or '.join(source.channels)} has no valid value in the frames "
                                 f"{frames.start} to {frames.stop - 1}; choose others")
            values, valid = next(source.read(first, first + 1))
            units = source.description["units"]
            for warning in (*warn_of_range(upscaler, values, source.channels, source.offsets),
                            *warn_of_units(upscaler, source.channels, units if isinstance(units, list) else [units]),
                            *warn_of_missing(upscaler, valid, source.channels)):
                print(warning, file=sys.stderr)
        return work

    @property
    def units(self) -> list[range]:
        return [self.frames]

    @property
    def subject(self) -> str:
        return f"{', '.join(self.source.channels)} in {self.settings.input}"

    def is_finished(self) -> bool:
        from hpc_vsr.media.field_sink import is_written

        return is_written(self.settings.output, self.fingerprint)

    def begin(self, upscaler: Upscaler) -> Choice:
        """Return the precision of this process: no other one takes part."""
        return upscaler.choice

    def lock(self) -> contextlib.AbstractContextManager:
        output = self.settings.output
        return only_writer(output.parent, f".{output.name}.lock")

    def missing(self) -> list[int]:
        return [] if self.is_finished() else [0]

    def make(self, numbers: range, upscaler: Upscaler, progress: Progress) -> None:
        """Write the enlarged field; see `hpc_vsr.media.field_sink.write_field`."""
        from hpc_vsr.media.field_sink import write_field

        settings, source = self.settings, self.source
        shape = [upscaler.scale * side for side in (source.height, source.width)]
        several = len(source.channels) > 1

        # they are asked for in their order, which is that of the enlarged ones
        def frame(number: int) -> np.ndarray | list[np.ndarray]:
            progress.advance()
            if number in source.facts.empty:
                planes = [np.full(shape, np.nan, dtype) for dtype in source.output_dtypes]
            else:
                made, planes = next(enlarged)
                assert made == number, (made, number)
            return planes if several else planes[0]

        steps = f", {settings.back_projection} steps of back-projection" if settings.back_projection else ""
        history = (f"{', '.join(source.channels)} enlarged {upscaler.scale} times by hpc-vsr {__version__} with "
                   f"{upscaler.name} ({upscaler.trained.settings.name}, checkpoint {upscaler.trained.sha256[:12]})"
                   f"{steps}")
        with contextlib.closing(self._enlarge(upscaler)) as enlarged:
            left_out = write_field(settings.output, source, self.frames, upscaler.scale, frame, history,
                                   self.fingerprint, upscaler.trained.predicts_error)
        if left_out and not upscaler.trained.predicts_error:
            progress.say(f"{settings.output}: without {', '.join(left_out)} of {settings.input.name}, which describe "
                         "its own grid or values and are not known for the enlarged ones")

    def _enlarge(self, upscaler: Upscaler) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Yield the number of each frame that has values, and those of each variable, enlarged by the workers."""
        source = self.source
        project = _back_projection(self.settings, upscaler, source)

        # frames of overlapping windows are read once, and by this thread, because the NetCDF library takes only one
        @functools.lru_cache(maxsize=CACHED)
        def read(number: int) -> Frame:
            values, valid = next(source.read(number, number + 1))
            return Frame(values, (number, valid))

        def window(number: int) -> list[Frame]:
            piece = piece_around(number, source.num_frames, source.facts.breaks)
            return [read(index) for index in window_around(number, *piece)]

        def finish(enlarged: np.ndarray, frame: Frame) -> tuple[int, list[np.ndarray]]:
            number, valid = frame.rest
            projected = project(torch.from_numpy(enlarged), torch.from_numpy(frame.values)).numpy()
            planes = []
            for channel, (dtype, offset) in enumerate(zip(source.output_dtypes, source.offsets, strict=True)):
                out = projected[channel].astype(dtype)
                if offset and not upscaler.trained.predicts_error:
                    out += offset
                # gaps of the input are gaps of the output
                if valid is not None:
                    known = valid if valid.ndim == 2 else valid[channel]
                    out[~known.repeat(upscaler.scale, 0).repeat(upscaler.scale, 1)] = np.nan
                planes.append(out)
            return number, planes
        return enlarge_stream((window(number) for number in self.frames if number not in source.facts.empty), upscaler,
                              finish, source.offsets, source.facts.periodic)

    def join(self, upscaler: Upscaler) -> bool:
        """Return True: the field was written as a whole."""
        return True


def _back_projection(settings: UpscaleSettings, upscaler: Upscaler, source: FieldSource | FieldsSource
                     ) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function of (SR, LR) that makes the SR agree with the LR; without steps it returns the SR unchanged."""
    if not settings.back_projection:
        return lambda sr, lr: sr
    terms = upscaler.trained.terms
    if BLUR_REACH * terms.sigma >= terms.scale * min(source.height, source.width):
        raise InputError(f"--back-projection: frames of {source.width}x{source.height} are too small for a blur of "
                         f"{terms.sigma:g} pixels; set it to 0")
    reduce, bicubic = Reduce(terms.scale, terms.sigma), Enlarge("bicubic", terms.scale)

    def project(sr: Tensor, lr: Tensor) -> Tensor:
        with torch.inference_mode():
            return back_project(sr[None], lr[None], reduce, bicubic, settings.back_projection,
                                source.facts.periodic)[0]
    return project
