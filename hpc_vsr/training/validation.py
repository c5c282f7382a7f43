"""Measures a network on the validation split during training, on all ranks together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hpc_vsr.data.clips import Clips
from hpc_vsr.metrics.image import PAPER_CROP, psnr
from hpc_vsr.models.precision import autocast
from hpc_vsr.models.wrap import wrapped
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
    """

    mse: float
    psnr: float
    frames: int


def validate(upscale: Callable[[Tensor], Tensor], clips: Clips, ranks: Ranks, precision: str, num_samples: int,
             is_stopped: Callable[[], bool] = lambda: False, margin: int = 0) -> Validation | None:
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
    """
    samples = clips.spread_evenly(num_samples or len(clips))
    mse_sum, psnr_sum, frames = 0.0, 0.0, 0
    with torch.inference_mode(), autocast(ranks.device, precision):
        for number, centre in samples[ranks.rank :: ranks.world_size]:
            if is_stopped():
                break
            split = clips.splits[number]
            window = split.window(centre).to(ranks.device)
            hr = split.normalise(split.hr_frame(centre)).to(ranks.device)
            out = wrapped(upscale, window[None], margin, split.manifest.periodic)[0].float()
            error = (out - hr)[..., PAPER_CROP:-PAPER_CROP, PAPER_CROP:-PAPER_CROP]
            mse = torch.nanmean(error.double() ** 2).item()
            mse_sum, psnr_sum, frames = mse_sum + mse, psnr_sum + psnr(mse, 1.0), frames + 1
    mse_sum, psnr_sum, total = ranks.sum([mse_sum, psnr_sum, float(frames)])
    if total < len(samples):
        return None
    return Validation(mse_sum / total, psnr_sum / total, int(total))
