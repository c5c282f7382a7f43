"""Applies a function of frames to frames that go on at the other side, without a seam."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

AXES = {"x": -1, "y": -2}  # of a (..., h, w) tensor


def wrap(values: Tensor, margin: int, periodic: str) -> Tensor:
    """Return (..., h, w) with `margin` rows or columns of the other side added at both sides of each periodic axis.

    `periodic` is "", "x", "y" or "xy". A margin wider than the frame shows it several times.
    """
    for name in periodic:
        size = values.shape[AXES[name]]
        places = torch.arange(-margin, size + margin, device=values.device) % size
        values = values.index_select(AXES[name], places)
    return values


def wrapped(function: Callable[[Tensor], Tensor], values: Tensor, margin: int, periodic: str) -> Tensor:
    """Return ``function(values)`` as if the frames went on at the other side of each periodic axis.

    Parameters
    ----------
    function : callable
        (..., h, w) to (..., r h, r w), for any h and w and a fixed ratio r that makes whole numbers of both.
    values : (..., h, w) Tensor
    margin : int
        Pixels of `values` on each side that an output pixel depends on, or more; a multiple of 1 / r if r is below 1.
    periodic : {"", "x", "y", "xy"}
        Without an axis this is ``function(values)``.
    """
    return unwrap(function(wrap(values, margin, periodic)), margin, periodic, values.shape[-2:])


def unwrap(out: Tensor, margin: int, periodic: str, size: Sequence[int]) -> Tensor:
    """Cut what a function of wrapped values has made of the margins; `size` is (h, w) of the values without them."""
    for name in periodic:
        length, inner = out.shape[AXES[name]], size[AXES[name]]
        whole = inner + 2 * margin
        out = out.narrow(AXES[name], length * margin // whole, length * inner // whole)
    return out
