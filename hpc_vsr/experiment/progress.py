"""Tells how far a run is and how it ended, from the files of its folder alone: `hpc_vsr.cluster.state` adds the queue.

`status`, `launch` and the report use these words. This needs no torch, so that `status` answers at once.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.experiment.finished import differing_settings, read_begun
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.runs.checkpoints import read_facts
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.history import read_history
from hpc_vsr.runs.start import Start, read_start
from hpc_vsr.system.config import as_dict
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.lock import is_held, read_lock
from hpc_vsr.system.lock_holder import Holder

NOT_STARTED, RUNNING, STOPPED, DIVERGED, FINISHED = "not started", "running", "stopped", "diverged", "finished"
OTHER = "with other settings"
SURE = 2  # records in a row without a finite loss that mean a divergence; one may be a bad batch


@dataclass(frozen=True)
class Progress:
    """What the files of a run folder say.

    Attributes
    ----------
    state : str
        not started, running (a process holds its lock), stopped, diverged or finished.
    step, steps : int
        Steps taken, of how many. Of a run that nobody trains, `step` is that of the newest whole checkpoint, from which
        it goes on.
    best : float or None
        Best validation PSNR, dB.
    samples_per_second : float or None
    batch_size : int
        That of the run in this folder.
    other : tuple of str
        The settings, or the data set, in which the run in this folder differs from the one that was asked for.
    divergence : str
        How the loss went wrong; empty if it did not.
    holder : Holder or None
        The process that is training it.
    start : Start or None
        Where it started, if it is fine-tuned.
    """

    state: str
    step: int = 0
    steps: int = 0
    best: float | None = None
    samples_per_second: float | None = None
    batch_size: int = 0
    other: tuple[str, ...] = ()
    divergence: str = ""
    holder: Holder | None = None
    start: Start | None = None

    @property
    def sentence(self) -> str:
        """The state with what goes with it: 'stopped at step 40 of 60', 'diverged: the loss was ...'."""
        of = f" of {self.steps}" if self.steps else ""  # of a damaged configuration it is not known
        at = f" at step {self.step}{of}" if self.state in (STOPPED, RUNNING) else ""
        return f"{self.state}{at}{f': {self.divergence}' if self.state == DIVERGED else ''}"


def read_progress(run: RunFolder, experiment: Experiment | None = None) -> Progress:
    """Return how far a run is.

    Parameters
    ----------
    run : RunFolder
    experiment : Experiment, optional
        The run that was asked for; without it the run that the folder holds.
    """
    history = read_history(run.metrics)
    newest = run.checkpoints.newest()
    facts, config = _read_checkpoint(run)
    # the number of steps that this run has been given
    begun = (config or {}).get("train") or {}  # imported weights have none
    wanted = as_dict(experiment.train) if experiment else begun
    own_steps = begun.get("steps", 0)
    is_trained = newest is not None and not facts.get("validation_due") and facts.get("step", 0) >= own_steps
    held = is_held(run.path)
    # without a checkpoint a run has nothing to lose: launched again, it takes any settings
    compared = config and experiment and (held or newest is not None)
    other = tuple(_differences(config, experiment)) if compared else ()
    divergence = _find_divergence(history, facts, begun.get("precision", ""))
    if held:
        state = RUNNING
    elif divergence:
        state = DIVERGED
    elif is_trained:
        state = FINISHED
    else:
        state = STOPPED if newest is not None or history else NOT_STARTED
    seen = history[-1]["step"] if history else 0
    step = max(seen, facts.get("step", 0)) if held or divergence else facts.get("step", 0)
    scores = [record["validation"]["psnr"] for record in history
              if isinstance(record.get("validation"), dict) and record["validation"].get("psnr")]
    rates = [record["samples_per_second"] for record in history if record.get("samples_per_second")]
    return Progress(state, step, wanted.get("steps", 0), max(scores, default=None), rates[-1] if rates else None,
                    begun.get("batch_size", wanted.get("batch_size", 0)), other, divergence,
                    read_lock(run.path) if held else None, _read_start(run, config))


def _read_checkpoint(run: RunFolder) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the numbers of the newest checkpoint, empty without one, and the configuration of the run."""
    newest = run.checkpoints.newest()
    try:
        if newest is not None:
            return read_facts(newest), read_begun(run)
        return {}, run.read_config() if run.config.exists() else None
    except InputError:  # a damaged file, which the training reports
        return {} if newest is None else {"step": run.checkpoints.step_of(newest), "validation_due": True}, None


def _read_start(run: RunFolder, config: dict[str, Any] | None) -> Start | None:
    with contextlib.suppress(InputError):  # of another version
        return read_start(config or {}, str(run.config))
    return None


def _differences(config: dict[str, Any], experiment: Experiment) -> list[str]:
    try:
        found = differing_settings(config, experiment)
    except InputError as error:  # of another version
        return [str(error)]
    try:
        fingerprint = read_manifest(experiment.data).fingerprint
    except InputError:  # the data set may be gone when the run has been trained
        return found
    return found if config.get("data_fingerprint") in (fingerprint, None) else [
        *found, f"it was trained on another data set than {experiment.data}"]


def _find_divergence(history: list[dict], facts: dict[str, Any], precision: str) -> str:
    """Return how the loss went wrong for good, or nothing.

    NaN and infinity are null in the history. A single bad batch is no divergence: the next record has a finite loss.
    In fp16 the last steps may be left out although all is well, while the loss scaler looks for its factor.
    """
    losses = [record for record in history if "loss" in record]
    went_on = bool(losses) and losses[-1]["step"] > facts.get("step", 0)  # after its newest checkpoint
    # bad gradients, which the record has when it gives up; the gradient of a loss that overflows may be finite
    bad = (losses[-1] if went_on else facts).get("bad_steps", 0)
    last = losses[-1 if bad else -SURE:]
    if (bad or len(last) == SURE) and last and not any(_is_finite(record["loss"]) for record in last):
        return f"the loss was not finite at step {last[-1]['step']}"
    if bad and precision != "fp16":
        return f"the gradient was not finite in the last {bad} steps"
    return ""


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
