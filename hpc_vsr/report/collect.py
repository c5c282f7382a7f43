"""Gathers what the runs recorded into one report; it measures nothing."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpc_vsr.data.info import Variable, has_variables, variables_of
from hpc_vsr.evaluation.record import DatasetSummary, Evaluation, Row, read_evaluation
from hpc_vsr.experiment.progress import FINISHED, read_progress
from hpc_vsr.experiment.settings import TrainSettings
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.report.ablation import Group, common_level, group_runs
from hpc_vsr.report.published import PublishedRow, published_rows
from hpc_vsr.report.record import Curves, Failure, RunSummary
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.history import read_history
from hpc_vsr.runs.start import read_start
from hpc_vsr.system.config import ABSENT, as_dict, from_dict
from hpc_vsr.system.errors import InputError

MOST_PICTURES = 4_000_000_000  # bytes; twenty 4K frames in ten methods take 1.6 GB


@dataclass(frozen=True)
class Report:
    """Everything that a report shows.

    Attributes
    ----------
    dataset, runs, rows, published, level, failed
        Content of report.json.
    states : dict
        {run: state} of the runs that are not finished.
    curves : dict
        {run: Curves} from metrics.jsonl.
    pictures : dict
        {"frame": P numbers, "lr": P arrays (C, h, w), "hr" and each method: P arrays (C, H, W)}, float32 in stored
        values; for a collection also "clip": P names.
    """

    dataset: DatasetSummary
    runs: list[RunSummary]
    rows: list[Row]
    published: list[PublishedRow]
    level: float | None
    failed: list[Failure]
    states: dict[str, str]
    curves: dict[str, Curves]
    pictures: dict[str, Sequence]

    @property
    def content(self) -> dict:
        """Content of report.json."""
        return {name: as_dict(getattr(self, name)) for name in ("dataset", "runs", "rows", "published", "level",
                                                                "failed")}

    @property
    def is_video(self) -> bool:
        """Whether it shows grey levels, of a video or images, and not a field."""
        return self.dataset.is_grey

    @property
    def main_profile(self) -> str:
        """Profile in which runs are ranked."""
        return self.profiles[0]

    def groups(self) -> list[Group]:
        """Return the runs in groups that differ only in the seed, the best first."""
        return group_runs(self.runs, self.ranked(self.main_profile), self.curves, self.level)

    def ranked(self, profile: str, variable: str = ABSENT, clip: str = ABSENT) -> list[Row]:
        """Return the rows of one profile, and of one variable if there are several; the best PSNR first.

        For a collection they are those of all clips together, or of one `clip`.
        """
        rows = [row for row in self.rows if (row.profile, row.variable, row.clip) == (profile, variable, clip)]
        return sorted(rows, key=lambda row: float("inf") if row.psnr is None else row.psnr, reverse=True)

    def of_clips(self, profile: str) -> dict[str, dict[str, Row]]:
        """Return {clip: {method: row}} of a collection in one profile; the methods are ordered as in `ranked`."""
        order = {row.method: place for place, row in enumerate(self.ranked(profile))}
        clips: dict[str, dict[str, Row]] = {}
        for row in sorted(self.rows, key=lambda row: order[row.method]):
            if row.profile == profile and row.clip is not ABSENT:
                clips.setdefault(row.clip, {})[row.method] = row
        names = [clip.name for clip in self.dataset.all_clips]
        return {name: clips[name] for name in names if name in clips}

    def picture_psnr(self, index: int, channel: int = 0) -> dict[str, float | None]:
        """Return {method: PSNR} of the frame of a picture: in the main profile, or of the channel's variable.

        It is None if it is infinite.
        """
        clip = str(self.pictures["clip"][index]) if self.dataset.is_collection else ABSENT
        rows = self.ranked("field", self.variables[channel].name, clip) if self.has_variables else self.ranked(
            self.main_profile, clip=clip)
        return {row.method: row.per_frame.psnr_of(int(self.pictures["frame"][index])) for row in rows}

    def picture_name(self, index: int, variable: str = "") -> str:
        """Return of what a picture is: "frame 12 of diamond.mp4", or of a `variable` if there are several."""
        source = str(self.pictures["clip"][index]) if self.dataset.is_collection else self.dataset.source.name
        shown = ", ".join(filter(None, (variable, source if self.dataset.is_collection or not variable else "")))
        return f"frame {int(self.pictures['frame'][index])} of {shown}"

    @property
    def variables(self) -> list[Variable]:
        """The variables of a field in the order of the channels; none for a video or images."""
        return variables_of(self.dataset.as_one)

    @property
    def has_variables(self) -> bool:
        """Whether there are several variables, each with figures and pictures of its own."""
        return has_variables(self.dataset.as_one)

    @property
    def parts(self) -> list[tuple[str, str]]:
        """The profiles, each with its variables if there are several, else with `ABSENT`."""
        return list(dict.fromkeys((row.profile, row.variable) for row in self.rows))

    @property
    def profiles(self) -> list[str]:
        return list(dict.fromkeys(row.profile for row in self.rows))


def collect(runs: Sequence[RunFolder], split: str = "test", level: float | None = None,
            states: Mapping[str, str] | None = None) -> Report:
    """Read the evaluations of runs that share a data set.

    A run without an evaluation is listed under ``failed`` with the reason. `level` is a validation PSNR; the report
    shows when each run first reached it. The default is the highest level that all runs reach. `states` says of the
    runs that are not finished in which state they are; without it, their folders say so.

    Raises
    ------
    InputError
        If no run has an evaluation, two runs have one name, or they were measured on different data sets.
    """
    if len({run.name for run in runs}) != len(runs):
        raise InputError(f"runs: two folders have the same name: {', '.join(str(run.path) for run in runs)}")
    # the evaluation of each run; one that cannot be read goes to the list of failures
    evaluations: dict[str, Evaluation] = {}
    failed: list[Failure] = []
    for run in runs:
        try:
            evaluations[run.name] = _read_evaluation(run, split)
        except InputError as error:
            failed.append(Failure(run.name, (states or {}).get(run.name) or str(error)))
    if not evaluations:
        raise InputError(f"no run can be reported: {failed[0].reason}")
    # all evaluations must be of one data set
    datasets = {name: evaluation.dataset for name, evaluation in evaluations.items()}
    first = next(iter(datasets.values()))
    for name, dataset in datasets.items():
        if dataset.fingerprint != first.fingerprint:
            raise InputError(f"runs/{name}: was measured on {dataset.name}, but {next(iter(datasets))} on "
                             f"{first.name}; make one report for each data set")
    # rows of all methods; the baselines, which every run has, once
    rows: dict[tuple, Row] = {}
    for evaluation in evaluations.values():
        for row in evaluation.rows:
            rows.setdefault((row.method, row.profile, row.variable, row.clip), row)
    summaries = [_summary(run, evaluations[run.name]) for run in runs if run.name in evaluations]
    measured = [run for run in runs if run.name in evaluations]
    curves = {run.name: read_curves(run) for run in measured}
    tables = [evaluation.settings.published for evaluation in evaluations.values()]
    table = next((name for name in tables if name != "none"), None)
    of_all = [row for row in rows.values() if row.clip is ABSENT]
    published = published_rows(of_all, summaries, table) if table else []
    return Report(first, summaries, list(rows.values()), published, common_level(curves) if level is None else level,
                  failed, _states_of(measured) if states is None else dict(states), curves,
                  _read_pictures(measured, split))


def _states_of(runs: Sequence[RunFolder]) -> dict[str, str]:
    """Return {run: state} of the runs that are not finished, as their folders say."""
    found = {run.name: read_progress(run) for run in runs}
    return {name: progress.sentence for name, progress in found.items() if progress.state != FINISHED}


def _read_evaluation(run: RunFolder, split: str) -> Evaluation:
    run.read_config()
    command = f"python -m hpc_vsr.evaluate --run {run.path} --split {split}"
    evaluation = read_evaluation(run.evaluation(split), f"run '{command}'")
    if evaluation.run != run.name:
        raise InputError(f"{run.path}: was measured as {evaluation.run!r}, before it was renamed or copied; run "
                         f"'{command}'")
    return evaluation


def _summary(run: RunFolder, evaluation: Evaluation) -> RunSummary:
    config = run.read_config()
    records = read_history(run.metrics)
    epoch = records[-1].get("epoch") if records else None
    return RunSummary(
        name=run.name, model=from_dict(ModelSettings, config["model"], str(run.config)),
        train=from_dict(TrainSettings, config["train"], str(run.config)) if config["train"] else None,
        imported=config.get("imported"), start=read_start(config, str(run.config)),
        epochs=epoch if _is_number(epoch) else None,
        is_grey=evaluation.dataset.is_grey, flow=None if evaluation.flow is ABSENT else evaluation.flow,
        calibrations=evaluation.calibrations,
        step=evaluation.step, precision=evaluation.precision, device=evaluation.device,
        wiener_noise=evaluation.wiener_noise, trained_on=evaluation.trained_on,
        variables=evaluation.dataset.channels if has_variables(evaluation.dataset.as_one) else ABSENT)


def read_curves(run: RunFolder) -> Curves:
    """Return the training loss over the steps, and the validation PSNR with its step and epoch."""
    records = read_history(run.metrics)
    return Curves(
        [(record["step"], record["loss"]) for record in records if _is_number(record.get("loss"))],
        [(record["step"], record["validation"]["psnr"], record["epoch"]) for record in records
         if isinstance(record.get("validation"), dict) and _is_number(record["validation"].get("psnr"))
         and _is_number(record.get("epoch"))])


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _read_pictures(runs: Sequence[RunFolder], split: str) -> dict:
    """Return the pictures of the first run, and the networks' pictures of the others if they show the same frames."""
    pictures: dict = {}
    for run in runs:
        try:
            with np.load(run.pictures(split), allow_pickle=False) as stored:
                if sum(entry.file_size for entry in stored.zip.infolist()) > MOST_PICTURES:
                    continue
                loaded = _by_method({name: stored[name] for name in stored.files if name != "methods"})
        except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error):
            continue
        if not pictures or all(np.array_equal(pictures.get(key, []), loaded.get(key, [])) for key in ("frame", "clip")):
            pictures = {**loaded, **pictures}
    return pictures


def _by_method(arrays: dict[str, np.ndarray]) -> dict[str, Sequence]:
    """Return the pictures of each method; those of a collection are stored one by one, as NAME/0, NAME/1, ..."""
    if "clip" not in arrays:
        return arrays
    names = {name.rpartition("/")[0] for name in arrays if "/" in name}
    shown = range(len(arrays["frame"]))
    return {"frame": arrays["frame"], "clip": arrays["clip"],
            **{name: [arrays[f"{name}/{index}"] for index in shown] for name in names}}
