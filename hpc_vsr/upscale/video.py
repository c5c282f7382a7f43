"""Enlarges a video to 2, 3 or 4 times its size, in segments that are encoded one by one and joined at the end.

The limits of a segment depend only on the settings, and its frames do not depend on other segments. So any number of
tasks make the same file, and after a kill only the missing segments are made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from hpc_vsr import __version__
from hpc_vsr.media.planes import find_format, nearest_format, without_alpha
from hpc_vsr.media.tags import Codec
from hpc_vsr.media.video_convert import MATRICES
from hpc_vsr.media.video_join import check_container, holds, join_segments, read_comment
from hpc_vsr.media.video_sink import QUALITY, Encoding, choose_codec, keeps_alpha, write_segment
from hpc_vsr.media.video_source import VideoSource
from hpc_vsr.models.settings import Choice
from hpc_vsr.system.errors import Failed, InputError
from hpc_vsr.system.files import check_free_space, create_folder, is_valid, no_folder, record_checksum, sha256
from hpc_vsr.system.lock import Held, Lock, only_writer
from hpc_vsr.system.progress import Progress
from hpc_vsr.upscale.checks import follow_input, warn_of_blur, warn_of_noise
from hpc_vsr.upscale.errors import PER_GREY_LEVEL, encode_errors
from hpc_vsr.upscale.planes import enlarge_planes
from hpc_vsr.upscale.record import join_upscaling
from hpc_vsr.upscale.settings import UpscaleSettings, fingerprint_of
from hpc_vsr.upscale.upscaler import Upscaler
from hpc_vsr.upscale.windows import pick_few

RECORD = "plan.json"
ALPHA_CODECS: dict[str, Codec] = {".mkv": "ffv1", ".mov": "prores"}  # that players of these files show with opacity
ALPHA_OF_PRORES = "yuva444p10le"
BT601 = 6  # the matrix for input that was RGB; code of ISO/IEC 23091-2


@dataclass(frozen=True)
class VideoUpscaling:
    """The upscaling of a video; see `hpc_vsr.upscale.loop.Upscaling`.

    Attributes
    ----------
    settings : UpscaleSettings
    source : VideoSource
    shown, encoding : Encoding
        How the enlarged pictures are coded, and what is written: these pictures, or their predicted errors.
    frames : range
        The frames to upscale.
    fingerprint : str
        Fingerprint of the input, the network and the settings; it is in the output's comment.
    """

    settings: UpscaleSettings
    source: VideoSource
    shown: Encoding
    encoding: Encoding
    frames: range
    fingerprint: str

    kind: ClassVar[str] = "a video"
    is_field: ClassVar[bool] = False
    unused: ClassVar[tuple[str, ...]] = ("back_projection",)
    item: ClassVar[str] = "frame"

    @classmethod
    def plan(cls, settings: UpscaleSettings, upscaler: Upscaler, source: VideoSource) -> VideoUpscaling:
        """Check the input and the output; warn of streams that will be lost and of what may look wrong."""
        shown = _choose_encoding(settings, source, upscaler.scale)
        encoding = encode_errors(shown) if upscaler.trained.predicts_error else shown
        frames = settings.frames(source.num_frames)
        left_out = check_container(settings.output, encoding.codec, settings.input,
                                   source.times[frames.start : frames.stop], source.tags.time_base, source.has_clock)
        settings = follow_input(settings, upscaler, _sample(source, frames), str(settings.input))
        identity = fingerprint_of(settings, source=sha256(settings.input), network=upscaler.trained.sha256,
                                  encoded=[encoding.codec, encoding.planes.name, encoding.quality])
        work = cls(settings, source, shown, encoding, frames, identity)
        is_finished = work.is_finished()
        if settings.output.exists() and not is_finished:
            raise InputError(f"{settings.output}: exists and is not what this command makes; delete it or choose "
                             "another --output")
        # tell what will be lost or may look wrong
        for stream in [*left_out, *_lost(source, shown)] if not upscaler.trained.predicts_error else []:
            print(f"{settings.input}: {stream} is left out", file=sys.stderr)
        if not is_finished and not upscaler.trained.predicts_error:
            few = list(_sample(source, frames))
            for warning in (warn_of_blur(upscaler, few, str(settings.input)),
                            warn_of_noise(upscaler, few, str(settings.input))):
                if warning:
                    print(warning, file=sys.stderr)
        return work

    @property
    def units(self) -> list[range]:
        length = self.settings.segment
        return [self.frames[start : start + length] for start in range(0, len(self.frames), length)]

    @property
    def subject(self) -> str:
        return str(self.settings.input)

    @property
    def coding(self) -> str:
        encoding = self.encoding
        quality = "" if encoding.quality is None else f" at quality {encoding.quality}"
        return f", {encoding.codec} {encoding.planes.name}{quality}"

    @property
    def pieces(self) -> str:
        count = len(self.units)
        return f"; {count} segment{'s' * (count != 1)}"

    @property
    def folder(self) -> Path:
        """Folder of the segments until they are joined."""
        return self.settings.output.with_name(f"{self.settings.output.name}.parts")

    def segment_path(self, number: int) -> Path:
        return self.folder / f"segment-{number:05d}{self.encoding.suffix}"

    def is_finished(self) -> bool:
        return self.settings.output.exists() and self.fingerprint in read_comment(self.settings.output)

    def begin(self, upscaler: Upscaler) -> Choice:
        """Create the segments' folder, or check that it is of this upscaling; return the precision it was begun in."""
        settings, record = self.settings, self.folder / RECORD
        if not record.exists():
            if not settings.output.parent.is_dir():
                raise InputError(f"{no_folder(settings.output.parent)}; make it or choose another --output")
            create_folder(self.folder)
            check_free_space(self.folder, settings.input.stat().st_size)
        return join_upscaling(record, self.fingerprint,
                              {"frames": [self.frames.start, self.frames.stop], "segment": settings.segment,
                               **_stand_ins(self.source)}, upscaler,
                              f"{self.folder}: holds segments of another upscaling into {settings.output}; delete it "
                              "or give the settings, the input and the network that it was begun with")

    def lock(self) -> contextlib.AbstractContextManager:
        """Return no lock: each segment has its own, so that tasks help each other."""
        return contextlib.nullcontext()

    def missing(self) -> list[int]:
        return [number for number in range(len(self.units)) if not is_valid(self.segment_path(number))]

    def make(self, numbers: range, upscaler: Upscaler, progress: Progress) -> None:
        """Write the missing segments of a run of numbers; frames are decoded and enlarged ahead over their limits."""
        stop, stream = self.units[numbers[-1]].stop, contextlib.ExitStack()
        pictures: Iterator[list[np.ndarray]] | None = None
        with stream:
            for number in numbers:
                if is_valid(self.segment_path(number)) or self.is_finished():  # made by another task, meanwhile
                    pictures = stream.close()
                    continue
                try:
                    with only_writer(self.folder, f".segment-{number:05d}.lock") as lock:
                        if pictures is None:
                            rest = range(self.units[number].start, stop)
                            pictures = stream.enter_context(contextlib.closing(
                                enlarge_planes(self.source, rest, self.shown, self.settings, upscaler)))
                        self._make_segment(number, pictures, progress, lock)
                except Held:  # an element of an array that was submitted again meets those of the first array
                    if self.settings.part is None:
                        raise
                    pictures = stream.close()

    def _make_segment(self, number: int, pictures: Iterator[list[np.ndarray]], progress: Progress, lock: Lock) -> None:
        """Write a segment and its checksum."""
        path = self.segment_path(number)

        # frames flow from the decoder through the network to the encoder, and the lock is checked at each
        def checked() -> Iterator[list[np.ndarray]]:
            for planes in itertools.islice(pictures, len(self.units[number])):
                lock.check()
                progress.advance()
                yield planes
        write_segment(path, checked(), self.encoding)
        record_checksum(path)

    def join(self, upscaler: Upscaler) -> bool:
        """Join the segments, unless some are missing or --part is given; return whether the output is complete."""
        if self.is_finished():
            shutil.rmtree(self.folder, ignore_errors=True)  # left if a kill came after the joining
            return True
        settings, missing, count = self.settings, self.missing(), len(self.units)
        if missing:
            if settings.part is None:
                raise Failed(f"{self.folder}: segment {missing[0]} is missing after all; run the same command again")
            print(f"{self.folder}: {count - len(missing)} of {count} segments are there; the command without --part "
                  "makes what is missing and joins them", file=sys.stderr)
            return False
        if settings.part is not None:
            print(f"{self.folder}: all segments are there; the command without --part joins them", file=sys.stderr)
            return False
        # several tasks may get here at the same time, but only one joins
        with only_writer(self.folder, ".join.lock"):
            if self.is_finished():  # by another task, while this one waited
                return True
            self._join_segments(upscaler)
        while self.folder.exists():
            with contextlib.suppress(FileNotFoundError):  # a task that came later removes it too
                shutil.rmtree(self.folder)
        return True

    def _join_segments(self, upscaler: Upscaler) -> None:
        what = f", {PER_GREY_LEVEL} for each grey level" if upscaler.trained.predicts_error else ""
        comment = (f"upscaled {upscaler.scale} times by hpc-vsr {__version__} with {upscaler.name}{what} "
                   f"({upscaler.trained.settings.name}, {upscaler.trained.sha256[:12]}); {self.fingerprint}"
                   + "".join(f"; another frame stands in for {len(frames)} {what}"
                             for what, frames in _stand_ins(self.source).items()))
        paths = [self.segment_path(number) for number in range(len(self.units))]
        times = self.source.times[self.frames.start : self.frames.stop + 1]
        join_segments(self.settings.output, paths, self.encoding, self.settings.input, times,
                      len(self.frames) == self.source.num_frames, comment, self.source.has_clock)


def _choose_encoding(settings: UpscaleSettings, source: VideoSource, scale: int) -> Encoding:
    """Return how the output is coded: in the pixel format of the input, or the nearest one that can be written."""
    tags = source.tags
    name = tags.pixel_format
    planes = find_format(name, tags.full_range)
    if planes is None:
        name = nearest_format(name, tags.depth, tags.is_rgb, source.is_transparent())
        planes = find_format(name, tags.full_range)
    asked = settings.codec
    if planes.has_alpha:
        asked, name = _keep_alpha(settings, name)
    height, width = scale * source.height, scale * source.width
    codec, name = choose_codec(asked, name, height, width, bool(tags.hdr))
    if tags.is_rgb and tags.matrix not in MATRICES:  # then the one with which its luma is made
        tags = dataclasses.replace(tags, matrix=BT601)
    if settings.quality is not None and codec not in QUALITY:
        raise InputError(f"--quality: {codec} has none; it is for {', '.join(QUALITY)}")
    quality = QUALITY.get(codec) if settings.quality is None else settings.quality
    return Encoding(codec, quality, source.planes(name), height, width, tags)


def _keep_alpha(settings: UpscaleSettings, name: str) -> tuple[Codec, str]:
    """Return the codec and pixel format for a video with opacity; without it, if the output cannot hold it."""
    codec = ALPHA_CODECS.get(settings.output.suffix.lower()) if settings.codec == "auto" else settings.codec
    if codec is not None and holds(settings.output.suffix, codec):
        for kept in (name, ALPHA_OF_PRORES):
            if keeps_alpha(codec, kept) and (kept == name or codec == "prores"):
                return codec, kept
    return settings.codec, without_alpha(name)


def _lost(source: VideoSource, encoding: Encoding) -> list[str]:
    """Return what the output cannot hold of the pictures themselves, in words."""
    tags, lost = source.tags, [*source.tags.lost]
    if tags.has_alpha and not encoding.planes.has_alpha and (tags.pixel_format.startswith("yuva")
                                                             or source.is_transparent()):
        lost.append("transparency (a .mkv file keeps it)")
    if tags.depth > encoding.planes.bits:
        lost.append(f"what {tags.depth} bits hold beyond {encoding.planes.bits} ({encoding.codec} takes no more)")
    if tags.hdr and not encoding.keeps_hdr:
        lost.append("the metadata of HDR10, mastering display and light level (--codec hevc keeps them)")
    return lost


def _stand_ins(source: VideoSource) -> dict[str, list[int]]:
    """Return the frames in whose place another one stands, for the records: dropped ones and damaged ones."""
    return {key: source.description[key] for key in ("dropped", "damaged") if key in source.description}


def _sample(source: VideoSource, frames: range) -> Iterator[np.ndarray]:
    """Yield a few frames, (C, h, w) as the network sees them."""
    for number in pick_few(frames):
        for picture, _ in source.read(number, number + 1):
            yield picture
