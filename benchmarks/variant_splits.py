"""Splits whose frames are changed before a variant of `compact` sees them: LR with noise, HR mixed with a teacher's."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from hpc_vsr.data.samples import Split  # noqa: E402
from hpc_vsr.data.splits import REACH  # noqa: E402
from hpc_vsr.upscale.upscaler import Upscaler  # noqa: E402


class Noisy(Split):
    """Frames whose LR has Gaussian noise; `sigma` is in grey levels, or in 255ths of a field's range.

    The noise of a frame follows from its number, and the values are rounded as they are stored.
    """

    sigma = 0.0

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.noisy = torch.stack([self._add(index) for index in range(self.start, self.stop)])
        if self.memory is not None:
            self.memory = (self.noisy, self.memory[1])

    def _add(self, index: int) -> Tensor:
        clean = super().lr_frames(index, index + 1)[0]
        noise = np.random.default_rng(index).normal(0, self.sigma * self.manifest.extent / 255, clean.shape)
        noisy = clean.double() + torch.from_numpy(noise)
        return noisy.round().clamp(0, 255).byte() if clean.dtype == torch.uint8 else noisy.to(clean.dtype)

    def lr_frames(self, start: int, stop: int, rows: slice = slice(None)) -> Tensor:
        return self.noisy[start - self.start : stop - self.start, :, rows]


def noisy_split(sigma: float) -> type[Split]:
    """Return a class of splits with that noise."""
    return type("Noisy", (Noisy,), {"sigma": sigma})


def teach(frames: Split, teacher: Upscaler) -> None:
    """Replace the HR frames in memory, which have windows, by the mean of them and of what a trained network makes."""
    lr, hr = frames.memory
    mixed = hr.float()
    for centre in frames.centres:
        made = teacher.enlarge(frames.lr_frames(centre - REACH, centre + REACH + 1).transpose(0, 1))
        mixed[centre - frames.start] = (mixed[centre - frames.start] + made) / 2
    frames.memory = lr, mixed
