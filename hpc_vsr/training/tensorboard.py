"""Writes the curves of a training in TensorBoard's format, besides metrics.jsonl, for `train.tensorboard`."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_vsr.system.errors import InputError

EVENTS = "events.out.tfevents.*"


def check_installed(wanted: bool) -> None:
    """Raise `InputError` if TensorBoard is wanted and its package is missing."""
    try:
        if wanted:
            importlib.import_module("tensorboard")
    except ImportError:
        raise InputError("train.tensorboard: needs the package tensorboard; run 'pip install hpc-vsr[tensorboard]', or "
                         "leave it out") from None


class EventFile:
    """The curves of a run as one event file, which is written anew from the history whenever the training starts.

    So a resumed run has no point twice, and the option may be given at any time. The time of points of an earlier life
    is that of the start.

    Parameters
    ----------
    folder : Path
        ``tensorboard/`` of the run folder; its event files are replaced.
    history : sequence of dict
        The records of metrics.jsonl so far.
    batch_size : int
        Samples of a step.
    """

    def __init__(self, folder: Path, history: Sequence[dict[str, Any]], batch_size: int):
        # imported late, because it takes seconds and needs a package that most users do not have
        from torch.utils.tensorboard import SummaryWriter

        for path in folder.glob(EVENTS):
            path.unlink()
        self.batch_size = batch_size
        self.writer = SummaryWriter(str(folder), purge_step=0)  # an open TensorBoard forgets the points of before
        for record in history:
            self._write(record)
        self.writer.flush()

    def append(self, record: dict[str, Any]) -> None:
        """Append the figures of a record of metrics.jsonl."""
        self._write(record)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()

    def _write(self, record: dict[str, Any]) -> None:
        for name, value in list_points(record, self.batch_size).items():
            self.writer.add_scalar(name, math.nan if value is None else value, record["step"])


def list_points(record: dict[str, Any], batch_size: int) -> dict[str, float | None]:
    """Return the points of a record as {curve: value}: loss, learning rate, steps/s, PSNR in dB and SSIM."""
    points = {"training/loss": "loss", "training/learning rate": "lr"}
    found = {name: record[key] for name, key in points.items() if key in record}
    if "samples_per_second" in record:
        found["training/steps per second"] = record["samples_per_second"] / batch_size
    for key, name in (("validation", "validation"), ("validation_first_stage", "validation of the first stage")):
        if isinstance(record.get(key), dict):
            found |= {f"{name}/{figure.upper()}": record[key][figure] for figure in ("psnr", "ssim")
                      if figure in record[key]}
    return found
