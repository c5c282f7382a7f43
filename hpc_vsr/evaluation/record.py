"""The record of an evaluation, ``metrics-SPLIT.json`` of a run; docs/formats.md describes its keys."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.info import Normalisation, SourceInfo, check_consistent, check_splits, has_variables
from hpc_vsr.data.manifest import Manifest
from hpc_vsr.evaluation.calibration import Calibration
from hpc_vsr.experiment.settings import EvaluateSettings
from hpc_vsr.system.config import ABSENT, Record, from_dict
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import read_sealed

BASELINES = ("bicubic", "wiener")
FIELD_FIGURES = ("rmse", "bias", "q99_error", "q999_error", "lr_consistency", "log_spectral_distance", "band_large",
                 "band_medium", "band_small", "effective_resolution", "spectrum")
OF_GREY_LEVELS = {"sr": True, "field": False}  # profiles of one kind of data
MOST_PIXELS = 2**31
Figure = float | None  # null if it is infinite or could not be measured


@dataclass(frozen=True, kw_only=True)
class PerFrame(Record):
    """Figures of each frame; `frame` has their numbers in the source."""

    frame: list[int]
    mse: list[Figure]
    psnr: list[Figure]
    ssim: list[Figure]
    # only in the profile "field"
    rmse: list[Figure] = ABSENT
    bias: list[Figure] = ABSENT
    q99_error: list[Figure] = ABSENT
    q999_error: list[Figure] = ABSENT
    lr_consistency: list[Figure] = ABSENT

    def psnr_of(self, frame: int) -> float | None:
        """Return the PSNR of a frame of the source; None if it was not measured or is infinite."""
        return dict(zip(self.frame, self.psnr, strict=True)).get(frame)

    def __post_init__(self):
        _check_lengths(self, "per_frame")


@dataclass(frozen=True)
class Spectrum(Record):
    """Mean power spectra over the wavenumber in cycles per HR pixel, in units squared."""

    wavenumber: list[float]
    sr: list[float]
    hr: list[float]
    error: list[float]

    def __post_init__(self):
        _check_lengths(self, "spectrum")


@dataclass(frozen=True, kw_only=True)
class Row(Record):
    """Figures of one method in one profile, in the profile "field" of one variable if there are several.

    They are of a clip of a collection, or of all frames of the split. The row of all clips has no `per_frame`; those of
    the clips have it.
    """

    # only of one of several variables
    variable: str = ABSENT
    units: str = ABSENT
    method: str
    model: str
    params: int
    flops: int
    split: str
    clip: str = ABSENT
    profile: Literal["paper", "sr", "field"]
    frames: int
    exact_frames: int
    psnr: Figure
    psnr_pooled: Figure
    mse: Figure
    ssim: Figure
    # only in the profile "field"
    rmse: Figure = ABSENT
    bias: Figure = ABSENT
    q99_error: Figure = ABSENT
    q999_error: Figure = ABSENT
    lr_consistency: Figure = ABSENT
    log_spectral_distance: Figure = ABSENT
    band_large: Figure = ABSENT
    band_medium: Figure = ABSENT
    band_small: Figure = ABSENT
    effective_resolution: Figure = ABSENT
    spectrum: Spectrum = ABSENT
    # only of a video with two frames or more
    tof: Figure = ABSENT
    warp_error: Figure = ABSENT
    seconds_per_frame: float
    per_frame: PerFrame = ABSENT

    @property
    def axes(self) -> tuple[list, list]:
        """Frames and wavenumbers for which it has figures."""
        frames = [] if self.per_frame is ABSENT else self.per_frame.frame
        return frames, [] if self.spectrum is ABSENT else self.spectrum.wavenumber

    def __post_init__(self):
        missing = [name for name in FIELD_FIGURES if self.profile == "field" and getattr(self, name) is ABSENT]
        if missing:
            raise InputError(f"rows: {self.method}: lacks {', '.join(missing)}")
        if self.clip is not ABSENT and self.per_frame is ABSENT:
            raise InputError(f"rows: {self.method}: lacks per_frame of the clip {self.clip!r}")


@dataclass(frozen=True)
class Flow(Record):
    """Root mean square differences after warping by the learned, a classical and no flow; see `measure_flow`."""

    learned: float
    dis: float
    zero: float
    frames: int
    pairs: int


@dataclass(frozen=True)
class ClipSummary(Record):
    """A clip of the data set of an evaluation; the name of that of a data set of one source is that of the file."""

    name: str
    source: SourceInfo
    lr_size: tuple[int, int]
    hr_size: tuple[int, int]
    splits: dict[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class DatasetSummary(Record):
    """The data set of an evaluation: its name, and what a report shows of its dataset.json.

    A collection has `clips`; a data set of one source has the keys of its only clip instead.
    """

    name: str
    fingerprint: str
    source: SourceInfo = ABSENT
    channels: list[str]
    dtype: Literal["uint8", "float32"]
    units: str | list[str]
    degradation: Degradation
    lr_size: tuple[int, int] = ABSENT
    hr_size: tuple[int, int] = ABSENT
    splits: dict[str, tuple[int, int]] = ABSENT
    value_range: tuple[float, float] | list[tuple[float, float]]
    normalisation: Normalisation
    clips: list[ClipSummary] = ABSENT

    def __post_init__(self):
        if any(value is ABSENT for value in (self.source, self.lr_size, self.hr_size, self.splits)) != (
                self.clips is not ABSENT) or self.clips == []:
            raise InputError("dataset: lacks its source or its clips")
        for clip in self.all_clips:
            check_consistent(self._with(clip))
            if math.prod(clip.hr_size) >= MOST_PIXELS:
                raise InputError(f"dataset: hr_size is larger than {MOST_PIXELS} pixels")
        check_splits({split for clip in self.all_clips for split in clip.splits})

    @functools.cached_property
    def all_clips(self) -> list[ClipSummary]:
        """The clips; for a data set of one source, its only one."""
        if self.clips is not ABSENT:
            return self.clips
        return [ClipSummary(self.source.name, self.source, self.lr_size, self.hr_size, self.splits)]

    @functools.cached_property
    def as_one(self) -> SimpleNamespace:
        """The data set with the source, sizes and splits of its first clip."""
        return self._with(self.all_clips[0])

    def _with(self, clip: ClipSummary) -> SimpleNamespace:
        return SimpleNamespace(**{**vars(self), **vars(clip)})

    @property
    def is_collection(self) -> bool:
        return self.clips is not ABSENT

    @property
    def title(self) -> str:
        """Name of the source, or of the collection and how many clips it has."""
        return f"{self.name}, {len(self.clips)} clips" if self.is_collection else self.source.name

    @property
    def is_grey(self) -> bool:
        """Whether the values are grey levels, 0 black and 255 white, and not those of a field."""
        return self.dtype == "uint8" or self.all_clips[0].source.white is not ABSENT

    @classmethod
    def of(cls, manifest: Manifest) -> DatasetSummary:
        shared = ["fingerprint", "channels", "dtype", "units", "degradation", "value_range", "normalisation"]
        of_clip = ["source", "lr_size", "hr_size", "splits"]
        found = {name: getattr(manifest.info, name) for name in shared}
        if not manifest.is_collection:
            return cls(name=manifest.name, **found, **{name: getattr(manifest.info, name) for name in of_clip})
        clips = [ClipSummary(clip.name, *(getattr(clip, name) for name in of_clip)) for clip in manifest.info.clips]
        return cls(name=manifest.name, **found, clips=clips)


@dataclass(frozen=True)
class Evaluation(Record):
    """The evaluation of a run on a split, with the checksum of the weights that were measured."""

    run: str
    split: str
    dataset: DatasetSummary
    step: int
    precision: str
    device: str
    wiener_noise: float | list[float]
    trained_on: str
    checkpoint_sha256: str
    twice_sha256: str | None
    settings: EvaluateSettings
    rows: list[Row]
    flow: Flow = ABSENT
    # only of a run that predicts its error
    error_sha256: str = ABSENT
    calibrations: list[Calibration] = ABSENT

    def __post_init__(self):
        grey, several = self.dataset.is_grey, has_variables(self.dataset.as_one)
        # a row of all frames for each part, and for each clip of a collection; the profile "field" has a part for each
        # of several variables
        variables = self.dataset.channels if several else [ABSENT]
        found = [row.variable for row in self.rows if row.profile == "field"]
        if any(name not in variables for name in found) or found and any(name not in found for name in variables):
            raise InputError("rows: wrong variables in profile 'field'")
        groups: dict[tuple, dict[str, Row]] = {}
        for row in self.rows:
            groups.setdefault((row.profile, row.variable, row.clip), {})[row.method] = row
        parts = list(dict.fromkeys((row.profile, row.variable) for row in self.rows)) or [("", "")]
        names = [clip.name for clip in self.dataset.all_clips if self.split in clip.splits]
        wanted = [(*part, clip) for part in parts for clip in [ABSENT, *(names if self.dataset.is_collection else [])]]
        if not self.dataset.is_collection and any(row.per_frame is ABSENT for row in self.rows):
            raise InputError("rows: lack per_frame")
        # each part has the baselines and the run, and all its methods the same frames and wavenumbers
        for part in dict.fromkeys([*wanted, *groups]):
            (profile, _, clip), own = part, groups.get(part, {})
            right = (part in wanted and {*BASELINES, self.run} <= own.keys()
                     and OF_GREY_LEVELS.get(profile, grey) == grey
                     and all(row.axes == own["wiener"].axes for row in own.values()))
            if not right:
                of_clip = "" if clip is ABSENT else f" of the clip {clip!r}"
                raise InputError(f"rows: wrong ones of profile {profile!r}{of_clip}")


def read_evaluation(path: Path, mend: str) -> Evaluation:
    """Read an evaluation; raise `InputError` if it is of another version, or made up, with how to `mend` it."""
    content = read_sealed(path, mend)
    try:
        return from_dict(Evaluation, content, "")
    except InputError as error:
        raise InputError(f"{path}: is not an evaluation of this version ({error}); {mend}") from None


def _check_lengths(lists: Record, where: str) -> None:
    """Raise `InputError` unless the lists of a record have one length and are not empty."""
    lengths = {len(values) for values in vars(lists).values() if values is not ABSENT}
    if len(lengths) != 1 or 0 in lengths:
        raise InputError(f"{where}: lists of different lengths, or empty ones")
