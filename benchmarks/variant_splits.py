"""Splits whose LR frames are changed before a variant of `compact` sees them: neighbours aligned, or noise added."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from hpc_vsr.data.samples import Split  # noqa: E402
from hpc_vsr.metrics.image import flow_between  # noqa: E402


class Changed(Split):
    """Frames whose LR is changed as it is read, so that patches are cut from it one by one and not in one gather."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.hr = None if self.memory is None else self.memory[1]
        self.memory = None

    def hr_frame(self, index: int, rows: slice = slice(None)) -> Tensor:
        return super().hr_frame(index, rows) if self.hr is None else self.hr[index - self.start, :, rows]


class Aligned(Changed):
    """Frames whose neighbours are moved onto the centre frame by their DIS optical flow, at LR size."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.windows = {centre: self._align(centre) for centre in self.centres}

    def _align(self, centre: int) -> Tensor:
        frames = super().lr_frames(centre - 2, centre + 3)
        grey = (self.normalise(frames).clamp(0, 1) * 255).round().byte().numpy()
        moved = frames.float().numpy().copy()
        rows, columns = np.mgrid[: moved.shape[-2], : moved.shape[-1]].astype(np.float32)
        for position in (0, 1, 3, 4):
            flow = flow_between(grey[2, 0], grey[position, 0])
            for channel in range(moved.shape[1]):
                moved[position, channel] = cv2.remap(moved[position, channel], columns + flow[..., 0],
                                                     rows + flow[..., 1], cv2.INTER_LANCZOS4,
                                                     borderMode=cv2.BORDER_REPLICATE)
        return torch.from_numpy(moved)

    def lr_frames(self, start: int, stop: int, rows: slice = slice(None)) -> Tensor:
        if stop - start == 5:
            return self.windows[start + 2][:, :, rows]
        return super().lr_frames(start, stop, rows)


class Noisy(Changed):
    """Frames whose LR has Gaussian noise; `sigma` is in grey levels, or in 255ths of a field's range.

    The noise of a frame follows from its number, and the values are rounded as they are stored.
    """

    sigma = 0.0

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.noisy = {index: self._add(index) for index in range(self.start, self.stop)}

    def _add(self, index: int) -> Tensor:
        clean = super().lr_frames(index, index + 1)[0]
        noise = np.random.default_rng(index).normal(0, self.sigma * self.manifest.extent / 255, clean.shape)
        noisy = clean.double() + torch.from_numpy(noise)
        return noisy.round().clamp(0, 255).byte() if clean.dtype == torch.uint8 else noisy.to(clean.dtype)

    def lr_frames(self, start: int, stop: int, rows: slice = slice(None)) -> Tensor:
        return torch.stack([self.noisy[index] for index in range(start, stop)])[:, :, rows]


def noisy_split(sigma: float) -> type[Split]:
    """Return a class of splits with that noise."""
    return type("Noisy", (Noisy,), {"sigma": sigma})
