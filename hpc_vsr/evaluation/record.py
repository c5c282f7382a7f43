"""The record of an evaluation, ``metrics-SPLIT.json`` of a run; docs/formats.md describes its keys."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.info import Normalisation, SourceInfo, check_consistent, has_variables, is_grey
from hpc_vsr.data.manifest import Manifest
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
    """Figures of one method in one profile; in the profile "field" of one variable, if there are several."""

    # only of one of several variables
    variable: str = ABSENT
    units: str = ABSENT
    method: str
    model: str
    params: int
    flops: int
    split: str
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
    per_frame: PerFrame

    @property
    def axes(self) -> tuple[list, list]:
        """Frames and wavenumbers for which it has figures."""
        return self.per_frame.frame, [] if self.spectrum is ABSENT else self.spectrum.wavenumber

    def __post_init__(self):
        missing = [name for name in FIELD_FIGURES if self.profile == "field" and getattr(self, name) is ABSENT]
        if missing:
            raise InputError(f"rows: {self.method}: lacks {', '.join(missing)}")


@dataclass(frozen=True)
class Flow(Record):
    """Root mean square differences after warping by the learned, a classical and no flow; see `measure_flow`."""

    learned: float
    dis: float
    zero: float
    frames: int
    pairs: int


@dataclass(frozen=True)
class DatasetSummary(Record):
    """The data set of an evaluation: its name, and what a report shows of its dataset.json."""

    name: str
    fingerprint: str
    source: SourceInfo
    channels: list[str]
    dtype: Literal["uint8", "float32"]
    units: str | list[str]
    degradation: Degradation
    lr_size: tuple[int, int]
    hr_size: tuple[int, int]
    splits: dict[str, tuple[int, int]]
    value_range: tuple[float, float] | list[tuple[float, float]]
    normalisation: Normalisation

    def __post_init__(self):
        check_consistent(self)
        if math.prod(self.hr_size) >= MOST_PIXELS:
            raise InputError(f"dataset: hr_size is larger than {MOST_PIXELS} pixels")

    @classmethod
    def of(cls, manifest: Manifest) -> DatasetSummary:
        shared = [field.name for field in dataclasses.fields(cls) if field.name != "name"]
        return cls(manifest.name, **{name: getattr(manifest.info, name) for name in shared})


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

    def __post_init__(self):
        grey = is_grey(self.dataset)
        # the profile "field" has a part for each of several variables
        names = self.dataset.channels if has_variables(self.dataset) else [ABSENT]
        found = [row.variable for row in self.rows if row.profile == "field"]
        if any(name not in names for name in found) or found and any(name not in found for name in names):
            raise InputError("rows: wrong variables in profile 'field'")
        # each part has the baselines and the run, and all its methods the same frames and wavenumbers
        for profile, variable in {(row.profile, row.variable): None for row in self.rows} or {("", ""): None}:
            own = {row.method: row for row in self.rows if (row.profile, row.variable) == (profile, variable)}
            right = ({*BASELINES, self.run} <= own.keys()
                     and OF_GREY_LEVELS.get(profile, grey) == grey
                     and all(row.axes == own["wiener"].axes for row in own.values()))
            if not right:
                raise InputError(f"rows: wrong ones of profile {profile!r}")


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
