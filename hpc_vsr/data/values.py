"""Converts between stored values (grey levels, units of a field) and a network's, 0..1 on its training split."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from hpc_vsr.models.wrap import wrapped


def to_unit(values: Tensor, offset: float, extent: float) -> Tensor:
    """Convert stored values of any type to float32, 0..1 on the training split; the same bits on every device.

    It multiplies by the inverse, because CUDA turns a division by a number into that product, which differs from a
    CPU's quotient in the last bit.
    """
    return (values.float() - offset) * (1.0 / extent)


def from_unit(values: Tensor, offset: float, extent: float) -> Tensor:
    """Convert a network's output, of any type, to stored values in float32."""
    return values.float() * extent + offset


def upscale_values(upscale: Callable[[Tensor], Tensor], values: Tensor, offset: float, extent: float,
                   margin: int = 0, periodic: str = "") -> Tensor:
    """Apply a network's function of values 0..1 to stored values, and return stored values in float32.

    The frames go on at the other side of the axes in `periodic` ("", "x", "y" or "xy"); the function then sees `margin`
    pixels of that side.
    """
    return from_unit(wrapped(upscale, to_unit(values, offset, extent), margin, periodic), offset, extent)
