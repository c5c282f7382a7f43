"""Gather what the runs recorded into one report; nothing is measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hpc_vsr.errors import InputError
from hpc_vsr.files import read_json
from hpc_vsr.history import read_history
from hpc_vsr.runs import RunFolder

BASELINES = ("bicubic", "wiener")


@dataclass(frozen=True)
class Report:
    """Everything that a report shows.

    Attributes
    ----------
    content : dict
        What becomes report.json.
    curves : dict
        {run: {"training": [(step, loss)], "validation": [(step, psnr)], "samples": [...]}} from metrics.jsonl.
    pictures : dict
        {"frame": (P,), "lr": (P, C, h, w), "hr" and each method: (P, C, H, W)} float32 in stored values.
    """

    content: dict
    curves: dict = field(default_factory=dict)
    pictures: dict = field(default_factory=dict)

    def rows(self, profile: str) -> list[dict]:
        """Rows of one profile, the best PSNR first."""
        rows = [row for row in self.content["rows"] if row["profile"] == profile]
        return sorted(rows, key=lambda row: float("inf") if row["psnr"] is None else row["psnr"], reverse=True)

    @property
    def profiles(self) -> list[str]:
        return list(dict.fromkeys(row["profile"] for row in self.content["rows"]))


def collect(runs: Sequence[RunFolder], split: str = "test") -> Report:
    """Read the evaluations of runs that share a data set.

    A run that has no evaluation is listed under ``failed`` with the reason.

    Raises
    ------
    InputError
        If no run has an evaluation, two runs have one name, or they were measured on different data sets.
    """
    if len({run.name for run in runs}) != len(runs):
        raise InputError(f"runs: two folders have the same name: {', '.join(str(run.path) for run in runs)}")
    evaluations, failed = {}, []
    for run in runs:
        try:
            evaluations[run.name] = _read_evaluation(run, split)
        except InputError as error:
            failed.append({"run": run.name, "reason": str(error)})
    if not evaluations:
        raise InputError(f"no run can be reported: {failed[0]['reason']}")
    datasets = {name: evaluation["dataset"] for name, evaluation in evaluations.items()}
    first = next(iter(datasets.values()))
    for name, dataset in datasets.items():
        if dataset["fingerprint"] != first["fingerprint"]:
            raise InputError(f"runs/{name}: was measured on {dataset['name']}, {next(iter(datasets))} on "
                             f"{first['name']}; make one report for each data set")
    rows: dict[tuple, dict] = {}
    for evaluation in evaluations.values():
        for row in evaluation["rows"]:
            rows.setdefault((row["method"], row["profile"]), row)
    summaries = [_summary(run, evaluations[run.name]) for run in runs if run.name in evaluations]
    content = {"dataset": first, "runs": summaries, "rows": list(rows.values()), "published": [], "failed": failed}
    measured = [run for run in runs if run.name in evaluations]
    return Report(content, {run.name: read_curves(run) for run in measured}, _read_pictures(measured, split))


def _read_evaluation(run: RunFolder, split: str) -> dict:
    run.read_config()
    command = f"python -m hpc_vsr.evaluate --run {run.path} --split {split}"
    evaluation = read_json(run.evaluation(split), f"run '{command}'")
    if not isinstance(evaluation, dict) or not {"rows", "dataset"} <= evaluation.keys():
        raise InputError(f"{run.evaluation(split)}: is not an evaluation; measure the run again")
    return evaluation


def _summary(run: RunFolder, evaluation: dict) -> dict:
    config = run.read_config()
    return {"name": run.name, "model": config["model"], "train": config["train"],
            **{key: evaluation[key] for key in ("step", "precision", "device", "wiener_noise", "trained_on")}}


def read_curves(run: RunFolder) -> dict:
    """Training loss and validation PSNR over the steps."""
    records = read_history(run.metrics)
    return {
        "training": [(record["step"], record["loss"]) for record in records if record.get("loss") is not None],
        "validation": [(record["step"], record["validation"]["psnr"]) for record in records
                       if record.get("validation", {}).get("psnr") is not None],
    }


def _read_pictures(runs: Sequence[RunFolder], split: str) -> dict:
    """Pictures of the first run, and the network's of the others where they show the same frames."""
    pictures: dict = {}
    for run in runs:
        try:
            with np.load(run.pictures(split), allow_pickle=False) as stored:
                loaded = {name: stored[name] for name in stored.files if name != "methods"}
        except (OSError, ValueError):
            continue
        if not pictures or np.array_equal(pictures["frame"], loaded["frame"]):
            pictures = {**loaded, **pictures}
    return pictures
