"""Checks an evaluation before a report reads it; one of another version, or made up, is refused with its fault."""

from __future__ import annotations

import math
from typing import Any

from hpc_vsr.report.published import PAPER

NUMBER = (int, float)
MAYBE = (int, float, type(None))  # null if it is infinite or was not measured
FIGURES = {name: MAYBE for name in ("mse", "psnr", "psnr_pooled", "ssim")}
OF_A_FIELD = {
    **{name: MAYBE for name in ("rmse", "bias", "q99_error", "q999_error", "log_spectral_distance", "band_large",
                                "band_medium", "band_small", "effective_resolution", "lr_consistency")},
    "spectrum": {name: [NUMBER] for name in ("wavenumber", "hr", "sr", "error")},
}
AXIS = {"name": str, "units": str, "first": NUMBER, "last": NUMBER}
ROW = {"method": str, "model": str, "params": int, "profile": str, "frames": int, "seconds_per_frame": NUMBER,
       **FIGURES, "per_frame": {"frame": [int], "psnr": [MAYBE]}}
DATASET = {
    "name": str, "fingerprint": str, "channels": [str], "dtype": str, "units": str, "lr_size": [int], "hr_size": [int],
    "source": {"name": str, "sha256": str, "frames": int}, "splits": {}, "normalisation": {"offset": NUMBER,
                                                                                          "extent": NUMBER},
    "degradation": {"kind": str, "sigma": NUMBER, "scale": int},
}
EVALUATION = {"run": str, "step": int, "precision": str, "device": str, "wiener_noise": NUMBER, "trained_on": str,
              "settings": {"published": str}, "dataset": DATASET, "rows": [ROW]}
MOST_PIXELS = 2**31


def fault_of(evaluation: Any, split: str) -> str | None:
    """Return the first entry that is not as `hpc_vsr.evaluate` writes it, or None."""
    fault = _misfit(evaluation, EVALUATION, "")
    if fault is not None:
        return fault
    dataset, rows = evaluation["dataset"], evaluation["rows"]
    spans = dataset["splits"]
    if split not in spans or any(_misfit(span, [int], "splits") or len(span) != 2 for span in spans.values()):
        return "dataset.splits"
    axes = dataset["source"].get("coordinates", [])
    if _misfit(axes, [AXIS], "axes") or len(axes) not in (0, 2):
        return "dataset.source.coordinates"
    sizes = (*dataset["hr_size"], *dataset["lr_size"])
    if not (len(sizes) == 4 and all(side > 0 for side in sizes) and math.prod(dataset["hr_size"]) < MOST_PIXELS):
        return "dataset.hr_size or lr_size"
    if not dataset["channels"] or dataset["degradation"]["scale"] not in (2, 4):
        return "dataset.channels or degradation"
    if evaluation["settings"]["published"] not in ("none", *PAPER):
        return "settings.published"
    if "flow" in evaluation and (fault := _misfit(evaluation["flow"], {"learned": NUMBER, "dis": NUMBER, "zero": NUMBER,
                                                                       "pairs": int}, "flow")):
        return fault
    return next((fault for row in rows if (fault := _fault_of_row(row))), None) or _missing_rows(rows)


def _fault_of_row(row: dict) -> str | None:
    if row["profile"] == "field" and (fault := _misfit(row, OF_A_FIELD, f"rows.{row['method']}")):
        return fault
    columns = row["per_frame"], row["spectrum"] if row["profile"] == "field" else {}
    for lists in columns:
        if len({len(values) for values in lists.values() if isinstance(values, list)}) > 1:
            return f"rows.{row['method']}: lists of different lengths"
    return None if row["per_frame"]["frame"] else f"rows.{row['method']}: no frames"


def _missing_rows(rows: list[dict]) -> str | None:
    """Return a fault unless each profile has both baselines, and all its methods the same frames."""
    for profile in {row["profile"]: None for row in rows} or {"": None}:
        own = {row["method"]: row["per_frame"]["frame"] for row in rows if row["profile"] == profile}
        if not {"bicubic", "wiener"} <= own.keys() or any(frames != own["wiener"] for frames in own.values()):
            return f"rows of profile {profile!r}"
    return None


def _misfit(value: Any, shape: Any, where: str) -> str | None:
    """Return where a value departs from a shape, or None.

    A shape is a type or types, {key: shape}, which allows more keys, or [shape of each item].
    """
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return where or "no object"
        return next((fault for key, inner in shape.items()
                     if (fault := _misfit(value.get(key, ...), inner, f"{where}.{key}".lstrip(".")))), None)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return where
        return next((fault for item in value if (fault := _misfit(item, shape[0], where))), None)
    right = isinstance(value, shape) and not isinstance(value, bool)
    return None if right and not (isinstance(value, NUMBER) and not abs(value) < 1e300) else where
