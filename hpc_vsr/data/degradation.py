"""How low-resolution frames are made: the ``[degradation]`` section of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hpc_vsr.system.errors import InputError


@dataclass(frozen=True)
class Degradation:
    """How the LR frames are made from the HR ones.

    Attributes
    ----------
    kind : str
        BD: Gaussian blur, then bicubic reduction (the report's). BI: bicubic reduction alone.
    sigma : float
        Standard deviation of the blur, in HR pixels.
    scale : int
        Factor between LR and HR size.
    """

    kind: Literal["BD", "BI"] = "BD"
    sigma: float = 3.0
    scale: Literal[2, 4] = 2

    @property
    def blur_sigma(self) -> float:
        """Standard deviation of the blur in HR pixels, 0 without one."""
        return self.sigma if self.kind == "BD" else 0.0

    def __post_init__(self):
        if self.kind == "BD" and not 0 < self.sigma <= 10:
            raise InputError(f"degradation.sigma: must be above 0 and at most 10 HR pixels, found {self.sigma}; "
                             'for no blur set degradation.kind to "BI"')
