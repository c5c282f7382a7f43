"""Measures how well the error of a network is predicted: on pixels with a predicted error, the actual one.

Both are of float32 values, before a video is rounded to its grey levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hpc_vsr.data.clips import Clips
from hpc_vsr.data.info import for_channels
from hpc_vsr.data.splits import REACH
from hpc_vsr.data.values import to_unit
from hpc_vsr.evaluation.calibration import Calibration
from hpc_vsr.metrics.image import PAPER_CROP
from hpc_vsr.models.network import Network
from hpc_vsr.models.wrap import wrapped
from hpc_vsr.runs.error_head import TrainedError
from hpc_vsr.system.config import ABSENT

BINS_PER_DECADE = 8
LOWEST, DECADES = 1e-5, 5  # of the extent of the values
LEAST_SHARE = 1e-3  # of the pixels; smaller bins are joined with their neighbours
NUM_FRAMES = 48
SIGMAS = (1, 2, 3)


@dataclass
class _Sums:
    """Sums over the pixels of each bin of predicted errors, of one channel, for values 0..1 on the training split."""

    count: Tensor
    predicted: Tensor
    actual: Tensor
    within: Tensor
    absolute: float = 0.0

    @classmethod
    def empty(cls) -> _Sums:
        bins = [torch.zeros(BINS_PER_DECADE * DECADES, dtype=torch.float64) for _ in range(3)]
        return cls(*bins, torch.zeros(len(SIGMAS), dtype=torch.float64))

    def add(self, error: Tensor, sigma: Tensor) -> None:
        """Add pixels, (N,) float64 each."""
        number = (torch.log10(sigma / LOWEST) * BINS_PER_DECADE).long().clamp(0, len(self.count) - 1)
        for sums, values in ((self.count, torch.ones_like(sigma)), (self.predicted, sigma**2), (self.actual, error**2)):
            sums.index_add_(0, number, values)
        self.within += torch.stack([(error.abs() <= times * sigma).sum() for times in SIGMAS])

    def record(self, extent: float, variable: str, units: str) -> Calibration:
        """Return the figures in the units of the values."""
        total = float(self.count.sum())
        bins, rest = [], torch.zeros(3, dtype=torch.float64)
        for each in torch.stack([self.count, self.predicted, self.actual], 1):
            rest += each
            if rest[0] >= LEAST_SHARE * total:
                bins, rest = [*bins, rest], torch.zeros(3, dtype=torch.float64)
        if rest[0] and bins:
            bins[-1] = bins[-1] + rest

        def root(squares: float, count: float) -> float:
            return extent * math.sqrt(squares / count)
        return Calibration(
            pixels=int(total), variable=variable, units=units,
            predicted=[root(float(one[1]), float(one[0])) for one in bins],
            actual=[root(float(one[2]), float(one[0])) for one in bins],
            share=[float(one[0]) / total for one in bins],
            rms_predicted=root(float(self.predicted.sum()), total), rms_actual=root(float(self.actual.sum()), total),
            within=[float(count) / total for count in self.within])


def measure_calibration(trained: TrainedError, clips: Clips, device: torch.device) -> list[Calibration]:
    """Return the figures of each variable, or of all channels together, on frames spread evenly over a split."""
    manifest, terms = clips.splits[0].manifest, trained.base.terms
    channels = len(manifest.channels)
    # the data set's values as those of the training, also if it is another one
    offset, extent = terms.offset_after(manifest.subtracted), terms.extent
    parts = range(channels) if manifest.has_variables else [slice(None)]
    sums = [_Sums.empty() for _ in parts]
    networks = trained.base.network.to(device), trained.network.to(device)
    with torch.inference_mode():
        for number, centre in clips.spread_evenly(NUM_FRAMES):
            split = clips.splits[number]
            frames = split.lr_frames(centre - REACH, centre + REACH + 1)
            window = to_unit(frames.to(device), offset, extent).transpose(0, 1)[None]
            hr = to_unit(split.hr_frame(centre).to(device), offset, extent)
            sr, sigma = (_upscale(network, window, channels, split.manifest.periodic) for network in networks)
            error = (sr - hr)[..., PAPER_CROP:-PAPER_CROP, PAPER_CROP:-PAPER_CROP].double().cpu()
            sigma = sigma[..., PAPER_CROP:-PAPER_CROP, PAPER_CROP:-PAPER_CROP].double().cpu()
            for part, own in zip(parts, sums, strict=True):
                known = ~torch.isnan(error[part])
                own.add(error[part][known], sigma[part][known])
    extents = for_channels(extent, channels)
    units = manifest.units if manifest.has_variables else [manifest.units]
    names = manifest.channels if manifest.has_variables else [ABSENT]
    return [own.record(*each) for own, *each in zip(sums, extents[: len(sums)], names, units, strict=True)]


def _upscale(network: Network, window: Tensor, channels: int, periodic: str) -> Tensor:
    margin = network.find_wrap(channels) if periodic else 0
    return wrapped(network.upscale, window, margin, periodic)[0].float()
