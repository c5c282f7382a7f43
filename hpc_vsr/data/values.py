"""Converts between stored values (grey levels, units of a field) and a network's, 0..1 on its training split."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hpc_vsr.models.wrap import wrapped

Numbers = float | list[float]  # one for all channels, or one for each


def to_unit(values: Tensor, offset: Numbers, extent: Numbers, axis: int = -3) -> Tensor:
    """Convert stored values of any type to float32, 0..1 on the training split; the same bits on every device.

    The channels lie along `axis`, which is negative. It multiplies by the inverse, because CUDA turns a division by a
    number into that product, which differs from a CPU's quotient in the last bit.
    """
    inverse = [1.0 / one for one in extent] if isinstance(extent, list) else 1.0 / extent
    return (values.float() - _along(offset, values, axis)) * _along(inverse, values, axis)


def from_unit(values: Tensor, offset: Numbers, extent: Numbers) -> Tensor:
    """Convert a network's output, (..., C, h, w) of any type, to stored values in float32."""
    return values.float() * _along(extent, values, -3) + _along(offset, values, -3)


def _along(numbers: Numbers, values: Tensor, axis: int) -> float | Tensor:
    """Return a number for all channels, or the numbers of all channels along an axis of `values`."""
    if not isinstance(numbers, list):
        return numbers
    assert len(numbers) == values.shape[axis], (numbers, values.shape)
    return torch.tensor(numbers, dtype=torch.float32, device=values.device).view(-1, *(1,) * (-1 - axis))


def upscale_values(upscale: Callable[[Tensor], Tensor], values: Tensor, offset: Numbers, extent: Numbers,
                   margin: int = 0, periodic: str = "") -> Tensor:
    """Apply a network's function of values 0..1 to stored values, and return stored values in float32.

    `values` are (B, C, 5, h, w), and the result is (B, C, s h, s w).

    The frames go on at the other side of the axes in `periodic` ("", "x", "y" or "xy"); the function then sees `margin`
    pixels of that side.
    """
    return from_unit(wrapped(upscale, to_unit(values, offset, extent, -4), margin, periodic), offset, extent)
