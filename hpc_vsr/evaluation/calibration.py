"""The record of how well a run predicts its error; it is part of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from hpc_vsr.system.config import ABSENT, Record
from hpc_vsr.system.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Calibration(Record):
    """How well the error is predicted, of all pixels or of one of several variables; see `measure_calibration`.

    Attributes
    ----------
    predicted, actual : list of float
        Predicted and actual error (root mean square) of pixels with about the same predicted error, ascending.
    share : list of float
        Share of the pixels that each of them stands for.
    rms_predicted, rms_actual : float
        Of all pixels, in `units`.
    within : list of float
        Share of the pixels whose error is within 1, 2 and 3 times the predicted one.
    """

    pixels: int
    variable: str = ABSENT
    units: str
    predicted: list[float]
    actual: list[float]
    share: list[float]
    rms_predicted: float
    rms_actual: float
    within: list[float]

    def __post_init__(self):
        lengths = {len(self.predicted), len(self.actual), len(self.share)}
        if len(lengths) != 1 or 0 in lengths or len(self.within) != 3:
            raise InputError("calibrations: lists of wrong lengths")
