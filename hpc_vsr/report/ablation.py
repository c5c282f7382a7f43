"""Compares many runs: the effect of each setting, the spread over seeds, and the time to reach a level."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from hpc_vsr.evaluation.record import Row
from hpc_vsr.experiment.finished import NEUTRAL
from hpc_vsr.report.record import Curves, RunSummary
from hpc_vsr.system.config import as_dict

SEED = "train.seed"
WITHOUT_MEANING = {f"train.{name}" for name in NEUTRAL}
LEVEL_STEP = 0.5  # dB


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed.

    Attributes
    ----------
    runs : tuple of str
    model : str
    settings : dict
        {"section.key": value} of the settings in which the runs of the report differ, without the seed.
    num_parameters, flops : int
    psnr, psnr_spread, ssim, seconds : float
        Means over the runs, and the standard deviation of PSNR (NaN for one run).
    epochs : float or None
        Epochs of training.
    epochs_to_level : float or None
        Mean epoch at which the validation first reached the level of the report; None if a run never did.
    """

    runs: tuple[str, ...]
    model: str
    settings: dict[str, Any]
    num_parameters: int
    flops: int
    psnr: float
    psnr_spread: float
    ssim: float
    seconds: float
    epochs: float | None
    epochs_to_level: float | None

    @property
    def name(self) -> str:
        return self.runs[0] if len(self.runs) == 1 else f"{self.runs[0]} and {len(self.runs) - 1} other " \
            f"seed{'s' * (len(self.runs) > 2)}"


def varied_settings(runs: list[RunSummary]) -> list[str]:
    """Return the settings, "section.key", in which the trained runs of a report differ; the seed is not one of them."""
    flat = [_flat(run) for run in runs if run.train is not None]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    return [key for key in keys if key != SEED and key not in WITHOUT_MEANING
            and len({repr(settings.get(key)) for settings in flat}) > 1]


def common_level(curves: dict[str, Curves]) -> float | None:
    """Return the highest validation PSNR in dB, in steps of half a dB, that all runs with a validation curve reach."""
    best = [max(psnr for _, psnr, _ in curve.validation) for curve in curves.values() if curve.validation]
    return math.floor(min(best) / LEVEL_STEP) * LEVEL_STEP if best else None


def first_epoch_at(curve: list[tuple[int, float, float]], level: float) -> float | None:
    """Return the epoch of the first validation with at least `level` dB, or None; a curve is (step, psnr, epoch)."""
    return next((epoch for _, psnr, epoch in curve if psnr >= level), None)


def group_runs(runs: list[RunSummary], rows: list[Row], curves: dict[str, Curves], level: float | None) -> list[Group]:
    """Return the runs in groups that differ only in the seed, the best first.

    Parameters
    ----------
    runs : list of RunSummary
    rows : list of Row
        Rows of one profile.
    curves : dict
        {run: Curves}.
    level : float or None
        Validation PSNR in dB.
    """
    # collect the runs that are equal but for the seed
    keys = varied_settings(runs)
    by_method = {row.method: row for row in rows}
    members: dict[str, list[RunSummary]] = {}
    for run in runs:
        flat = {key: value for key, value in _flat(run).items() if key != SEED and key not in WITHOUT_MEANING}
        begun = run.start and run.start.sha256  # the run that is named as the start may have been trained anew
        mark = repr([sorted(flat.items()), run.trained_on, run.precision, begun]) if run.train else run.name
        if any(other.train == run.train for other in members.get(mark, [])):
            mark = run.name  # the same seed again does not count as another seed
        members.setdefault(mark, []).append(run)
    # average over the runs of each group
    groups = []
    for same in members.values():
        own = [by_method[run.name] for run in same]
        scores = [math.inf if row.psnr is None else row.psnr for row in own]
        reached = [None if level is None else first_epoch_at(curves[run.name].validation, level)
                   for run in same]
        groups.append(Group(
            tuple(run.name for run in same), same[0].model.name,
            {key: _flat(same[0]).get(key) for key in keys} if same[0].train else {},
            own[0].params, own[0].flops, statistics.fmean(scores),
            statistics.stdev(scores) if len(scores) > 1 and all(map(math.isfinite, scores)) else math.nan,
            statistics.fmean(math.nan if row.ssim is None else row.ssim for row in own),
            statistics.fmean(row.seconds_per_frame for row in own), same[0].epochs,
            None if None in reached else statistics.fmean(reached)))
    return sorted(groups, key=lambda group: group.psnr, reverse=True)


def ablation_lines(groups: list[Group], key: str) -> list[tuple[dict, list[tuple[Any, Group]]]]:
    """Return groups that differ in only one setting, as lines over its values.

    Returns
    -------
    list of (others, points)
        The other varied settings that the groups of a line share, and (value, group) in order of the value. Lines of a
        single point are left out.
    """
    lines: dict[str, tuple[dict, list]] = {}
    for group in groups:
        if key in group.settings:
            others = {name: value for name, value in group.settings.items() if name != key}
            lines.setdefault(repr(others), (others, []))[1].append((group.settings[key], group))
    found = [(others, sorted(points, key=lambda point: order(point[0]))) for others, points in lines.values()]
    return [(others, points) for others, points in found if len(points) > 1]


def order(value: Any) -> tuple:
    """Return a sort key for the values of a setting: numbers by size, then everything else by its text."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (0, value, "") if is_number else (1, 0, str(value))


def _flat(run: RunSummary) -> dict[str, Any]:
    sections = {"model": as_dict(run.model), "train": as_dict(run.train) or {}}
    return {f"{section}.{key}": value for section, settings in sections.items() for key, value in settings.items()}
