"""Measures a network on the validation split during training, on all ranks together."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hpc_vsr.data.clips import Clips
from hpc_vsr.data.manifest import Manifest
from hpc_vsr.metrics.image import PAPER_CROP, psnr, ssim_default
from hpc_vsr.models.network import Network
from hpc_vsr.models.precision import autocast
from hpc_vsr.models.settings import TILE
from hpc_vsr.models.wrap import wrapped
from hpc_vsr.system.config import ABSENT
from hpc_vsr.system.ranks import Ranks


@dataclass(frozen=True)
class Validation:
    """The figures of a validation, as means over its frames.

    Attributes
    ----------
    mse : float
        Mean squared error, on values 0..1 of the training split.
    psnr : float
        Mean of the frames' PSNR in dB, with a peak of 1.
    frames : int
    ssim : float, optional
        Mean of the frames' SSIM with scikit-image's defaults, on the same values and pixels as the PSNR; of several
        channels their mean.
    """

    mse: float
    psnr: float
    frames: int
    ssim: float = ABSENT


def validate(upscale: Callable[[Tensor], Tensor], clips: Clips, ranks: Ranks, precision: str, num_samples: int,
             is_stopped: Callable[[], bool] = lambda: False, margin: int = 0, with_ssim: bool = False
             ) -> Validation | None:
    """Measure frames spread evenly over the clips; the ranks share them, and each frame is measured once.

    Parameters
    ----------
    upscale : callable
        Maps (1, C, 5, h, w) to (1, C, H, W), with values 0..1 on the training split.
    num_samples : int
        Number of frames; 0 takes all.
    is_stopped : callable
        Called before each frame; True if this rank must stop. If any rank stops, all ranks return None.
    margin : int
        LR pixels that the network sees of the other side of periodic frames.
    with_ssim : bool
        Also measure the SSIM, which takes about as long as a small network.
    """
    samples = clips.spread_evenly(num_samples or len(clips))
    mse_sum, psnr_sum, ssim_sum, frames = 0.0, 0.0, 0.0, 0
    with torch.inference_mode(), autocast(ranks.device, precision):
        for number, centre in samples[ranks.rank :: ranks.world_size]:
            if is_stopped():
                break
            split = clips.splits[number]
            window = split.window(centre).to(ranks.device)
            hr = split.normalise(split.hr_frame(centre)).to(ranks.device)
            out = wrapped(upscale, window[None], margin, split.manifest.periodic)[0].float()
            out, hr = (frame[..., PAPER_CROP:-PAPER_CROP, PAPER_CROP:-PAPER_CROP] for frame in (out, hr))
            mse = torch.nanmean((out - hr).double() ** 2).item()
            mse_sum, psnr_sum, frames = mse_sum + mse, psnr_sum + psnr(mse, 1.0), frames + 1
            ssim_sum += _ssim(out, hr) if with_ssim else 0.0
    mse_sum, psnr_sum, ssim_sum, total = ranks.sum([mse_sum, psnr_sum, ssim_sum, float(frames)])
    if total < len(samples):
        return None
    return Validation(mse_sum / total, psnr_sum / total, int(total), ssim_sum / total if with_ssim else ABSENT)


def _ssim(sr: Tensor, hr: Tensor) -> float:
    """Return the mean SSIM of the channels of (C, H, W) frames; where `hr` is NaN, both have the same value."""
    known = ~torch.isnan(hr)
    planes = [torch.where(known, frame, 0.0).double().cpu().numpy() for frame in (sr, hr)]
    return statistics.fmean(ssim_default(*pair, 1.0) for pair in zip(*planes, strict=True))


def prepare_reach(network: Network, manifest: Manifest, ranks: Ranks) -> int:
    """Find how far a network sees, if frames are measured in tiles or are periodic; the main rank measures it.

    Returns
    -------
    int
        LR pixels that it needs of the other side of periodic frames.
    """
    channels = len(manifest.channels)
    if manifest.periodic or max(map(max, manifest.lr_sizes)) > TILE:
        network.core_reach = ranks.on_main(lambda: network.find_core_reach(channels))
    return network.find_wrap(channels) if manifest.periodic else 0
