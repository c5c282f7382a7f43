"""Scores of a method on the frames of a split, and the rows of a report that follow from them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpc_vsr.data.degrade import degrade
from hpc_vsr.data.manifest import Manifest
from hpc_vsr.evaluation.methods import Method
from hpc_vsr.evaluation.record import PerFrame, Row, Spectrum
from hpc_vsr.metrics.field import measure_field, power_spectra, summarise_spectra, wavenumbers
from hpc_vsr.metrics.image import Profile, flow_between, list_profiles, luma, measure, psnr, temporal_error, to_8bit
from hpc_vsr.system.config import ABSENT
from hpc_vsr.system.errors import InputError

SEEN = 1e-6  # share of a gap in an LR pixel from which the pixel counts as affected


class Part(NamedTuple):
    """A part of the figures: a profile, and in the profile "field" the channel of a variable."""

    profile: Profile
    channel: int = 0


def list_parts(manifest: Manifest) -> list[Part]:
    """Return the parts of the figures of a data set, in the order of the rows."""
    variables = manifest.variables
    return [Part(profile, channel) for profile in list_profiles(manifest.is_grey, bool(variables))
            for channel in range(len(variables) if profile == "field" else 1)]


class HrFlow:
    """The optical flow of HR from a frame to the one before; it is computed once for a pair of frames."""

    def __init__(self):
        self._pair: tuple[np.ndarray, np.ndarray] | None = None
        self._flow: np.ndarray | None = None

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        if self._pair is None or not all(map(np.array_equal, self._pair, (first, second))):
            self._pair, self._flow = (first, second), flow_between(to_8bit(second), to_8bit(first))
        return self._flow


class Scores:
    """Figures of one method on one clip, frame by frame, in every profile."""

    def __init__(self, method: Method, manifest: Manifest):
        self.method, self.manifest, self.variables = method, manifest, manifest.variables
        self.frames: dict[Part, list[dict]] = {part: [] for part in list_parts(manifest)}
        self.temporal: list[dict] = []
        self.spectra: list[list[dict]] = [[] for _ in self.variables]
        self.seconds = 0.0
        self._flops = 0
        self._before: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, sr: np.ndarray, hr: np.ndarray, lr: np.ndarray, flow_of_hr: HrFlow) -> None:
        """Record one frame: (C, H, W), (C, H, W) and (C, h, w) float32 in stored values.

        `flow_of_hr` finds the motion in HR once for all methods.

        Raises
        ------
        InputError
            If the method made values that are not finite where HR has values; their error would be undefined.
        """
        manifest = self.manifest
        self._flops += self.method.flops
        if not np.isfinite(sr[~np.isnan(hr)]).all():
            raise InputError(f"{self.method.name}: made values that are not finite in the frame after "
                             f"{self.num_frames} measured ones, so it cannot be measured; try --precision fp32")
        # figures of the frame in every profile
        for part, recorded in self.frames.items():
            if part.profile == "field":
                recorded.append(self._measure_variable(part.channel, sr, hr, lr))
            else:
                recorded.append(self._measure_picture(part.profile, sr, hr))
        if manifest.is_grey:
            # motion from the previous frame, only for video
            now = luma("paper", sr, manifest.is_8bit), luma("paper", hr, manifest.is_8bit)
            if self._before is not None:
                pair = self._before[1], now[1]
                self.temporal.append(temporal_error((self._before[0], now[0]), pair, flow_of_hr(*pair)))
            self._before = now

    def _measure_variable(self, channel: int, sr: np.ndarray, hr: np.ndarray, lr: np.ndarray) -> dict:
        variable = self.variables[channel]
        sr, hr, lr = (values[channel : channel + 1] for values in (sr, hr, lr))
        self.spectra[channel].append(power_spectra(sr, hr))
        return {**measure_field(sr, hr, variable.offset, variable.extent),
                "lr_consistency": _lr_consistency(sr, hr, lr, self.manifest)}

    def _measure_picture(self, profile: Profile, sr: np.ndarray, hr: np.ndarray) -> dict:
        manifest = self.manifest
        if manifest.is_grey:
            return measure(profile, sr, hr, manifest.scale, True, manifest.is_8bit)
        if not manifest.has_variables:
            pair = [(values - manifest.offset) / manifest.extent for values in (sr, hr)]
            return measure(profile, *pair, manifest.scale, False, manifest.is_8bit)
        # each variable on its own range, so that none counts more than another
        each = [measure(profile, *((values[channel][None] - variable.offset) / variable.extent for values in (sr, hr)),
                        manifest.scale, False) for channel, variable in enumerate(self.variables)]
        mse = float(np.mean([figures["mse"] for figures in each]))
        return {"mse": mse, "psnr": psnr(mse, 1.0), "ssim": float(np.mean([figures["ssim"] for figures in each]))}

    def forget_frame(self) -> None:
        """Measure no motion from the last frame to the next one: frames are missing between them."""
        self._before = None

    @property
    def num_frames(self) -> int:
        return len(next(iter(self.frames.values())))

    @classmethod
    def of_all(cls, parts: Sequence[Scores]) -> Scores:
        """Return the figures of one method on all clips together; each frame counts alike."""
        whole = cls(parts[0].method, parts[0].manifest)
        for part in parts:
            for name, recorded in part.frames.items():
                whole.frames[name] += recorded
            for channel, recorded in enumerate(part.spectra):
                whole.spectra[channel] += recorded
            whole.temporal += part.temporal
            whole.seconds += part.seconds
            whole._flops += part._flops
        return whole

    def row(self, split: str, part: Part, clip: str = ABSENT, centres: Sequence[int] | None = None) -> Row:
        """Return the row of the report in one profile, of one variable if there are several.

        It has the figures of every frame if their `centres` are given. `clip` is the name of a clip of a collection.
        """
        frames, method, profile = self.frames[part], self.method, part.profile
        variable = self.variables[part.channel] if self.variables else None
        # means over the frames; PSNR without the frames that equal HR
        columns = {key: [frame[key] for frame in frames] for key in frames[0]}
        means = {key: float(np.mean(values)) for key, values in columns.items() if key != "psnr"}
        finite = [value for value in columns["psnr"] if math.isfinite(value)]  # equal frames have no PSNR
        data_range = variable.extent if profile == "field" else 255.0 if self.manifest.is_grey else 1.0
        figures = {**means, "psnr": float(np.mean(finite)) if finite else math.inf,
                   "psnr_pooled": psnr(means["mse"], data_range)}
        if profile == "field":
            # not the mean of the frames' RMSE
            figures["rmse"] = math.sqrt(means["mse"])
            figures.update(self._spectral_figures(self.spectra[part.channel]))
        if self.temporal:
            figures.update({key: float(np.mean([pair[key] for pair in self.temporal])) for key in self.temporal[0]})
        per_frame = ABSENT if centres is None else PerFrame(frame=list(centres), **_without_infinity(columns))
        several = profile == "field" and self.manifest.has_variables
        named = {"variable": variable.name, "units": variable.units} if several else {}
        return Row(
            **named, method=method.name, model=method.model, params=method.num_parameters,
            flops=self._flops // len(frames), split=split, clip=clip, profile=profile, frames=len(frames),
            exact_frames=columns["psnr"].count(math.inf), seconds_per_frame=self.seconds / len(frames),
            **_without_infinity(figures), per_frame=per_frame)

    def _spectral_figures(self, spectra: list[dict]) -> dict:
        k = wavenumbers(*self.manifest.hr_size)
        means = {name: np.mean([frame[name] for frame in spectra], axis=0) for name in ("sr", "hr", "error")}
        return {**summarise_spectra(k, **means),
                "spectrum": Spectrum(k.tolist(), **{name: power.tolist() for name, power in means.items()})}


def _lr_consistency(sr: np.ndarray, hr: np.ndarray, lr: np.ndarray, manifest: Manifest) -> float:
    """Return the RMS difference between SR degraded again and LR, over the LR pixels that see no gap; NaN if none."""
    again = functools.partial(degrade, degradation=manifest.degradation, periodic=manifest.periodic)
    gaps = np.isnan(hr).astype(np.float32)
    seen = np.abs(again(gaps)) > SEEN if gaps.any() else np.zeros(lr.shape, bool)
    difference = (again(sr) - lr)[~seen].astype(np.float64)
    return float(np.sqrt(np.mean(difference**2))) if difference.size else math.nan


def _without_infinity(value):
    """Return a JSON value with null for infinite numbers, such as the PSNR of equal frames."""
    if isinstance(value, dict):
        return {key: _without_infinity(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_infinity(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
