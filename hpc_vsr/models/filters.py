"""The fixed Wiener filters of a network for each of several blurs, and of several levels of noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from hpc_vsr.models.enlarge import Enlarge


class FilterBank:
    """The Wiener filters of a network for several inputs, all of one size; the network gets one of them at a time.

    At first the network keeps the filter that it has, in that size.

    Parameters
    ----------
    network : Network
    filters : sequence of (float, float)
        Blur in HR pixels and noise-to-signal power of each.
    """

    def __init__(self, network: nn.Module, filters: Sequence[tuple[float, float]]):
        self._filters: list[tuple[Enlarge, list[Tensor]]] = []
        for part in network.modules():
            if not isinstance(part, Enlarge) or part.kind != "wiener":
                continue
            each = [Enlarge("wiener", part.scale, sigma, noise).kernels.to(part.kernels.device)
                    for sigma, noise in filters]
            side = max(kernels.shape[-1] for kernels in [part.kernels, *each])
            part.kernels = _widen(part.kernels, side)
            self._filters.append((part, [_widen(kernels, side) for kernels in each]))

    def choose(self, level: int) -> None:
        """Give the network the filters number `level`."""
        for part, each in self._filters:
            part.use(each[level], level)


def _widen(kernels: Tensor, side: int) -> Tensor:
    """Surround (N, 1, k, k) filters by zeros, up to an odd side."""
    return F.pad(kernels, ((side - kernels.shape[-1]) // 2,) * 4)
