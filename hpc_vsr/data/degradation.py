"""The ``[degradation]`` section of a recipe: how low-resolution frames are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hpc_vsr.models.settings import WHOLE_SCALES
from hpc_vsr.system.errors import InputError


@dataclass(frozen=True)
class Degradation:
    """Settings with which LR frames are made from HR frames.

    Attributes
    ----------
    kind : str
        BD: Gaussian blur, then bicubic reduction (as in the paper). BI: only bicubic reduction.
    sigma : float
        Standard deviation of the blur, in HR pixels.
    scale : int
        Factor between the LR and the HR size.
    """

    kind: Literal["BD", "BI"] = "BD"
    sigma: float = 3.0
    scale: Literal[*WHOLE_SCALES] = 2

    @property
    def blur_sigma(self) -> float:
        """Standard deviation of the blur in HR pixels; 0 without a blur."""
        return self.sigma if self.kind == "BD" else 0.0

    def __post_init__(self):
        if self.kind == "BD" and not 0 < self.sigma <= 10:
            raise InputError(f"degradation.sigma: must be above 0 and at most 10 HR pixels, found {self.sigma}; "
                             'for no blur set degradation.kind to "BI"')
