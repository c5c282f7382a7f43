"""The records of a report beside its rows: its runs, and their training curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpc_vsr.evaluation.calibration import Calibration
from hpc_vsr.evaluation.record import Flow
from hpc_vsr.experiment.settings import TrainSettings
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.runs.start import Start
from hpc_vsr.system.config import ABSENT


@dataclass(frozen=True)
class RunSummary:
    """A run of a report: its settings, and how its weights were measured.

    `train` is None if they were imported; `start` says where a fine-tuned run started. `variables` are the names of
    several variables. `calibrations` say how well it predicts its error, if it does.
    """

    name: str
    model: ModelSettings
    train: TrainSettings | None
    imported: dict[str, Any] | None
    start: Start | None
    epochs: float | None
    is_grey: bool
    flow: Flow | None
    step: int
    precision: str
    device: str
    wiener_noise: float | list[float]
    trained_on: str
    variables: list[str] = ABSENT
    calibrations: list[Calibration] = ABSENT


@dataclass(frozen=True)
class Failure:
    """A run that cannot be reported, with the reason."""

    run: str
    reason: str


@dataclass(frozen=True)
class Curves:
    """The training of a run: (step, loss), and (step, validation PSNR in dB, epoch)."""

    training: list[tuple[int, float]]
    validation: list[tuple[int, float, float]]
