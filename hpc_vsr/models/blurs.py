"""A range of blurs for which one network is trained. This needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpc_vsr.system.errors import InputError

NUM_LEVELS = 8  # blurs of a training, at equal distances over its range
MOST = 10.0  # HR pixels, as in a recipe


@dataclass(frozen=True)
class BlurRange:
    """Gaussian blurs from `low` to `high`, as standard deviations in HR pixels; 0 is no blur."""

    low: float
    high: float

    @classmethod
    def parse(cls, text: str, where: str) -> BlurRange:
        """Read LOW..HIGH, such as 0.5..4; raise `InputError` that names `where` if it is no range of blurs."""
        first, _, last = text.partition("..")
        try:
            low, high = float(first), float(last)
        except ValueError:
            low = high = math.nan
        if not 0 <= low < high <= MOST:
            raise InputError(f"{where}: expected LOW..HIGH with 0 <= LOW < HIGH <= {MOST:g} HR pixels, such as "
                             f"0.5..4, found {text}")
        return cls(low, high)

    @property
    def sigmas(self) -> list[float]:
        """The blurs of a training."""
        step = (self.high - self.low) / (NUM_LEVELS - 1)
        return [*(self.low + number * step for number in range(NUM_LEVELS - 1)), self.high]


@dataclass(frozen=True)
class Blurs:
    """The blurs that a network was trained for, as its checkpoint records them.

    Attributes
    ----------
    sigmas : list of float
        Standard deviations in HR pixels, ascending.
    noise : list of float
        Noise-to-signal power of the Wiener filter for each; 0 for networks without one.
    """

    sigmas: list[float]
    noise: list[float]

    def __post_init__(self):
        numbers = [*self.sigmas, *self.noise]
        if not (len(self.sigmas) == len(self.noise) >= 2 and all(map(math.isfinite, numbers)) and min(numbers) >= 0
                and self.sigmas == sorted(set(self.sigmas)) and self.sigmas[-1] <= MOST):
            raise InputError(f"data_terms.blurs: invalid values: {self}")

    def noise_of(self, sigma: float) -> float:
        """Return the noise-to-signal power for any blur within the range, by interpolation of its logarithm."""
        if min(self.noise) == 0:
            return 0.0
        for low, high, first, second in zip(self.sigmas, self.sigmas[1:], self.noise, self.noise[1:], strict=False):
            if sigma <= high:
                share = max(0.0, (sigma - low) / (high - low))
                return first ** (1 - share) * second**share
        return self.noise[-1]
