"""Frames of a split with their neighbours moved onto each centre frame, to train networks with `model.align`."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from hpc_vsr.data.manifest import Manifest
from hpc_vsr.data.samples import Split
from hpc_vsr.data.splits import WINDOW
from hpc_vsr.data.values import from_unit
from hpc_vsr.models.align import ALIGN_WRAP, align
from hpc_vsr.models.wrap import unwrap, wrap


class AlignedSplit(Split):
    """A `Split` whose windows are aligned for patches, as `Network.upscale` aligns them.

    In memory every window has its own five frames, in float32. Otherwise a window is aligned each time a patch is cut
    from it.
    """

    def __init__(self, manifest: Manifest, split: str, device: torch.device | None = None, num_frames: int = 0):
        self._windows: Tensor | None = None
        super().__init__(manifest, split, device, num_frames)

    @functools.cached_property
    def _places(self) -> dict[int, int]:
        return {centre: place for place, centre in enumerate(self.centres)}

    def shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        shape = (WINDOW * len(self.centres), len(self.manifest.channels), *self.manifest.lr_size)
        return {**super().shapes(), "windows": (shape, torch.float32)}

    def keep(self, tensors: dict[str, Tensor]) -> None:
        super().keep(tensors)
        windows = tensors["windows"]
        for place, centre in enumerate(self.centres):
            windows[WINDOW * place : WINDOW * (place + 1)] = self.lr_window(centre)
        self._windows = windows

    def lr_window(self, centre: int, rows: slice = slice(None), level: int = 0) -> Tensor:
        if self._windows is not None:
            place = WINDOW * self._places[centre]
            return self._windows[place : place + WINDOW, :, rows]
        manifest, stored = self.manifest, super().lr_window(centre)
        values = wrap(self.normalise(stored).transpose(0, 1)[None], ALIGN_WRAP, manifest.periodic)
        moved = unwrap(align(values), ALIGN_WRAP, manifest.periodic, manifest.lr_size)
        return from_unit(moved[0].transpose(0, 1), manifest.offset, manifest.extent)[:, :, rows]

    def window_places(self, centres: Tensor, level: int = 0) -> Tensor:
        places = torch.tensor([self._places[int(centre)] for centre in centres])
        return WINDOW * places[:, None] + torch.arange(WINDOW)

    @property
    def windows_in_memory(self) -> Tensor:
        assert self._windows is not None
        return self._windows
