"""Finds which of the stored bits of a deep video or image hold values, and so which stored value is white."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hpc_vsr.system.errors import InputError

CONTAINER_BITS = 16
USUAL = (8, 10, 12, 14, 16)  # bits of cameras


@dataclass(frozen=True)
class Depth:
    """The significant bits of values that are stored in 16 bits.

    Attributes
    ----------
    bits : int
    white : int
        The stored value of white: 4095 for 12 bits in the lower part, 65520 for 12 bits in the upper part.
    """

    bits: int
    white: int


def find_depth(samples: Iterable[np.ndarray]) -> Depth:
    """Return the depth of uint16 values, found from a few frames.

    Bits that are always zero are not significant: below the lowest one that is ever set, if the highest bit is set
    somewhere; otherwise above the highest one, rounded up to a usual number of bits.
    """
    used = 0
    for values in samples:
        used |= int(np.bitwise_or.reduce(values, axis=None))
    if used >> (CONTAINER_BITS - 1):
        spare = (used & -used).bit_length() - 1
        spare = spare if CONTAINER_BITS - spare in USUAL else 0
        return Depth(CONTAINER_BITS - spare, (0xFFFF >> spare) << spare)
    bits = next(usual for usual in USUAL if usual >= used.bit_length())
    return Depth(bits, (1 << bits) - 1)


def given_depth(bits: int, samples: Iterable[np.ndarray], where: str) -> Depth:
    """Return the depth of uint16 values with `bits` significant bits, in the lower or the upper part of the 16.

    Raises
    ------
    InputError
        If the values do not fit.
    """
    if not 1 <= bits <= CONTAINER_BITS:
        raise InputError(f"--bits: must be 1 to {CONTAINER_BITS}, found {bits}")
    used = 0
    for values in samples:
        used |= int(np.bitwise_or.reduce(values, axis=None))
    spare = CONTAINER_BITS - bits
    if used < 1 << bits:
        return Depth(bits, (1 << bits) - 1)
    if used & ((1 << spare) - 1) == 0:
        return Depth(bits, ((1 << bits) - 1) << spare)
    raise InputError(f"--bits {bits}: {where} has values that need {used.bit_length()} bits")


def check_depth(values: np.ndarray, depth: Depth, where: str) -> None:
    """Raise `InputError` if uint16 values go beyond white."""
    largest = int(values.max())
    if largest > depth.white:
        raise InputError(f"{where} has the value {largest}, above {depth.white}, the largest one of the {depth.bits} "
                         f"bits that the frames looked at have; give --bits {largest.bit_length()} or more")
