"""Finds how many bits of 16 a camera filled, and the stored value of white that follows.

A recording of 12 bits in 16 has white at 4095, or at 65520 if its bits were moved to the top. Read as 16 bits, the
former is nearly black: 16 grey levels of 256.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from hpc_vsr.media.planes import GREY

DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras and of codecs
STORED = 16
UNUSED = (8, 6, 4, 2)  # low bits that are zero if the value was moved to the top


@dataclass(frozen=True)
class Depth:
    """Significant bits of 16-bit values, and the stored value of white; black is 0."""

    bits: int
    white: int

    def to_grey(self, stored: np.ndarray) -> np.ndarray:
        """Convert stored values to float32 grey levels, 0..255; white is 255 exactly."""
        # the product is exact in float32, because 255 * 65535 is below 2^24
        return stored.astype(np.float32) * np.float32(GREY) / np.float32(self.white)


def full_depth(bits: int) -> Depth:
    """Return the depth of values that fill `bits` bits from the lowest on."""
    return Depth(bits, (1 << bits) - 1)


@dataclass(frozen=True)
class Seen:
    """What is known of 16-bit values: the largest one, and every bit that is set in one of them."""

    largest: int = 0
    any_bits: int = 0

    def with_values(self, values: np.ndarray) -> Self:
        """Return what is known after a look at more values, an array of uint16."""
        return type(self)(max(self.largest, int(values.max())),
                          self.any_bits | int(np.bitwise_or.reduce(values, axis=None)))

    @property
    def is_settled(self) -> bool:
        """Whether no further values can show fewer bits than 16."""
        return self.largest >> DEPTHS[-2] > 0 and self.any_bits & 0b11 > 0

    @property
    def depth(self) -> Depth:
        """The smallest depth that holds the values; all bits if they are all zero.

        Values that use the top bit and never the lowest 2, 4, 6 or 8 were moved to the top.
        """
        if self.largest == 0:
            return full_depth(STORED)
        bits = next(bits for bits in DEPTHS if self.largest < 1 << bits)
        zeros = (self.any_bits & -self.any_bits).bit_length() - 1
        if bits == STORED and zeros in UNUSED and self.largest >> (STORED - 1):
            return Depth(STORED - zeros, ((1 << STORED - zeros) - 1) << zeros)
        return full_depth(bits)
