"""Frames of a split whose LR frames are made anew from its HR frames, to train a network for a range of blurs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.degrade import degrade
from hpc_vsr.data.manifest import Manifest
from hpc_vsr.data.samples import Split
from hpc_vsr.data.splits import REACH, WINDOW
from hpc_vsr.system.errors import InputError


class BlurredSplit(Split):
    """A `Split` with windows of several blurs for patches; a window of level n has the n-th blur.

    Its LR frames are those of `degrade`, to the bit: of the blur of the data set they are the stored ones. In memory
    there are the LR frames of every blur. Otherwise a window is made each time a patch is cut from it.

    Parameters
    ----------
    sigmas : sequence of float
        Blurs in HR pixels; 0 is none.
    """

    def __init__(self, manifest: Manifest, split: str, device: torch.device | None = None, num_frames: int = 0, *,
                 sigmas: Sequence[float]):
        self._degradations = [degradation_of(sigma, manifest.scale) for sigma in sigmas]
        self._windows: Tensor | None = None
        super().__init__(manifest, split, device, num_frames)

    @property
    def num_levels(self) -> int:
        return len(self._degradations)

    def shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        shapes = super().shapes()
        (count, *frame), kind = shapes["lr"]
        return {**shapes, "windows": ((self.num_levels * count, *frame), kind)}

    def keep(self, tensors: dict[str, Tensor]) -> None:
        super().keep(tensors)
        windows, hr = tensors["windows"], tensors["hr"]
        windows = windows.view(self.num_levels, len(hr), *windows.shape[1:])

        def make(index: int) -> None:
            frame = hr[index].cpu().numpy()
            for level in range(self.num_levels):
                windows[level, index] = torch.from_numpy(self._degrade(frame, level))
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # OpenCV lets other threads run meanwhile
            list(pool.map(make, range(len(hr))))
        self._windows = tensors["windows"]

    def lr_window(self, centre: int, rows: slice = slice(None), level: int = 0) -> Tensor:
        if self._windows is not None:
            first = level * (self.stop - self.start) + centre - REACH - self.start
            return self._windows[first : first + WINDOW, :, rows]
        frames = [self.hr_frame(index).cpu().numpy() for index in range(centre - REACH, centre + REACH + 1)]
        return torch.from_numpy(np.stack([self._degrade(frame, level) for frame in frames]))[:, :, rows]

    def window_places(self, centres: Tensor, level: int = 0) -> Tensor:
        return super().window_places(centres) + level * (self.stop - self.start)

    @property
    def windows_in_memory(self) -> Tensor:
        assert self._windows is not None
        return self._windows

    def _degrade(self, hr: np.ndarray, level: int) -> np.ndarray:
        if hr.dtype != np.uint8 and np.isnan(hr).any():
            raise InputError(f"train.sigma: {self.manifest.folder} has cells without a value, and what filled them "
                             "before the blur is not stored; train for the blur of the data set")
        return degrade(hr, self._degradations[level], self.manifest.periodic)


def degradation_of(sigma: float, scale: int) -> Degradation:
    """Return the degradation with a blur in HR pixels; 0 is none."""
    return Degradation("BD", sigma, scale) if sigma else Degradation("BI", scale=scale)
