"""Stored values (grey levels, the units of a field) and those that a network computes with, 0..1 on its training split.
"""

from __future__ import annotations

from torch import Tensor


def to_unit(values: Tensor, offset: float, extent: float) -> Tensor:
    """Stored values of any type to float32, 0..1 on the training split; the same bits on every device.

    By a product, since CUDA makes one of a division by a number, which is off by the last bit from a CPU's quotient.
    """
    return (values.float() - offset) * (1.0 / extent)


def from_unit(values: Tensor, offset: float, extent: float) -> Tensor:
    """What a network computed, of any type, to stored values in float32."""
    return values.float() * extent + offset
