"""The blurs, and the noise of a camera, for which one network is trained. This needs no torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from hpc_vsr.system.errors import InputError


@dataclass(frozen=True)
class Quantity:
    """Something of which the frames of a training have a range.

    Attributes
    ----------
    most : float
        The largest value that may be given.
    unit, example : str
        For messages.
    num_levels : int
        Values of a training, at equal distances over its range.
    """

    most: float
    unit: str
    example: str
    num_levels: int


BLUR = Quantity(10.0, "HR pixels", "0.5..4", 8)  # as in a recipe
CAMERA_NOISE = Quantity(25.0, "grey levels", "0..4", 4)


def parse_levels(text: str, quantity: Quantity, where: str) -> list[float]:
    """Return the levels of a range LOW..HIGH, such as 0.5..4; raise `InputError` that names `where` if it is none."""
    first, _, last = text.partition("..")
    try:
        low, high = float(first), float(last)
    except ValueError:
        low = high = math.nan
    if not 0 <= low < high <= quantity.most:
        raise InputError(f"{where}: expected LOW..HIGH with 0 <= LOW < HIGH <= {quantity.most:g} {quantity.unit}, such "
                         f"as {quantity.example}, found {text}")
    step = (high - low) / (quantity.num_levels - 1)
    return [*(low + number * step for number in range(quantity.num_levels - 1)), high]


@dataclass(frozen=True)
class Blurs:
    """The blurs and the camera noise that a network was trained for, as its checkpoint records them.

    Attributes
    ----------
    sigmas : list of float
        Standard deviations of the blur in HR pixels, ascending.
    noise : list of float
        Noise-to-signal power of the Wiener filter for each blur, and for each camera noise within it; 0 for networks
        without one.
    camera_noise : list of float
        Standard deviations of the noise of the LR frames in grey levels, ascending.
    """

    sigmas: list[float]
    noise: list[float]
    camera_noise: list[float] = field(default_factory=lambda: [0.0])

    def __post_init__(self):
        numbers = [*self.sigmas, *self.noise, *self.camera_noise]
        is_valid = (len(self.noise) == len(self.sigmas) * len(self.camera_noise) > 1
                    and all(map(math.isfinite, numbers)) and min(numbers) >= 0
                    and all(values == sorted(set(values)) and values[-1] <= quantity.most
                            for values, quantity in ((self.sigmas, BLUR), (self.camera_noise, CAMERA_NOISE))))
        if not is_valid:
            raise InputError(f"data_terms.blurs: invalid values: {self}")

    @property
    def filters(self) -> list[tuple[float, float]]:
        """Blur and noise-to-signal power of each filter, in the order of `noise`."""
        pairs = itertools.product(self.sigmas, self.camera_noise)
        return [(sigma, noise) for (sigma, _), noise in zip(pairs, self.noise, strict=True)]

    def noise_of(self, sigma: float, camera_noise: float = 0.0) -> float:
        """Return the noise-to-signal power for any blur and noise within the ranges, by interpolation of its logarithm.

        Values beyond a range are those of its end.
        """
        if min(self.noise) == 0:
            return 0.0
        logarithm = 0.0
        for row, share in _between(self.sigmas, sigma):
            for column, part in _between(self.camera_noise, camera_noise):
                logarithm += share * part * math.log(self.noise[row * len(self.camera_noise) + column])
        return math.exp(logarithm)


def _between(values: Sequence[float], value: float) -> list[tuple[int, float]]:
    """Return the places of the one or two ascending values around a value, and the share of each."""
    above = sum(one < value for one in values)
    if above == 0 or above == len(values):
        return [(min(above, len(values) - 1), 1.0)]
    share = (value - values[above - 1]) / (values[above] - values[above - 1])
    return [(above - 1, 1 - share), (above, share)]
