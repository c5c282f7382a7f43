"""Upscales a video with an enlargement that repeats each pixel, so that the right values are known, in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch

from hpc_vsr.media.source import open_source
from hpc_vsr.models.settings import Choice
from hpc_vsr.system.progress import Progress
from hpc_vsr.upscale.settings import UpscaleSettings
from hpc_vsr.upscale.video import VideoUpscaling

SCALE = 2


def repeat_pixels(frames: Sequence[torch.Tensor], *_: object) -> torch.Tensor:
    """Enlarge the frame in the middle, (C, h, w)."""
    return frames[len(frames) // 2].repeat_interleave(SCALE, 1).repeat_interleave(SCALE, 2)


def double_video(source: Path, target: Path, channels: int = 1, **settings) -> VideoUpscaling:
    """Make a video of twice the size by all that `upscale` does for a video, but without a network."""
    choice = Choice("fp32", "as asked for", "cpu")
    upscaler = SimpleNamespace(
        scale=SCALE, channels=channels, name="none", precision="fp32", choice=choice, device=torch.device("cpu"),
        workers=2, threads=1, frames_seen=lambda window: window, prepare=lambda frame, *_: frame,
        enlarge_seen=repeat_pixels, trained=SimpleNamespace(
            sha256="0" * 64, settings=SimpleNamespace(name="none"), terms=SimpleNamespace(
                sigma=0.0, scale=SCALE, blur_range=(0.0, 0.0), most_noise=0.0), predicts_error=False))
    given = UpscaleSettings(run=Path("none"), input=source, output=target, **settings)
    opened = open_source(source, "video", "rgb" if channels == 3 else "y", given.reading)
    work = VideoUpscaling.plan(given, upscaler, opened)
    work.begin(upscaler)
    with Progress(len(work.frames), "doubling", work.item, shown=False) as progress:
        work.make(range(len(work.units)), upscaler, progress)
    assert work.join(upscaler)
    return work
