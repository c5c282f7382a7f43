"""The tables of a report: as rows of text for the page, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from hpc_vsr.report.collect import Report

MEANINGS = {
    "paper": "Y of BT.601 in full range, rounded to 8 bit, 2 pixels cut a side; SSIM with scikit-image's defaults",
    "paper, field": "values 0..1 on the training split, 2 pixels cut a side; SSIM with scikit-image's defaults",
    "sr": "Y of BT.601 in studio range, rounded to 8 bit, as many pixels cut a side as the scale; "
          "SSIM of Wang et al. 2004",
}
NAMES = {"wiener": "Wiener"}
CSV_FIELDS = ("method", "model", "params", "split", "profile", "frames", "mse", "psnr", "psnr_pooled", "ssim", "tof",
              "warp_error", "seconds_per_frame")


def columns(report: Report) -> list[str]:
    """Heads of the columns of `cells`."""
    temporal = ["tOF (px)", "warp (levels)"] if _is_video(report) else []
    return ["method", "network", "parameters", "frames", "MSE", "PSNR (dB)", "pooled (dB)", "SSIM", *temporal,
            "s / frame"]


def cells(report: Report, row: dict) -> list[str]:
    """One row as text."""
    temporal = [f"{row[key]:.3f}" if key in row else "" for key in ("tof", "warp_error")] if _is_video(report) else []
    return [NAMES.get(row["method"], row["method"]), row["model"], f"{row['params']:,}" if row["params"] else "–",
            str(row["frames"]),
            f"{row['mse']:#.4g}", _decibels(row["psnr"]), _decibels(row["psnr_pooled"]), f"{row['ssim']:.4f}",
            *temporal, f"{row['seconds_per_frame']:.3f}"]


def meaning(report: Report, profile: str) -> str:
    """What a profile measures, in a line."""
    return MEANINGS[profile if _is_video(report) else f"{profile}, field"]


def markdown(report: Report, lead: str) -> str:
    """The whole report as Markdown, its tables aligned."""
    dataset = report.content["dataset"]
    parts = [f"# {dataset['source']['name']}, {dataset['degradation']['scale']} times", lead]
    for profile in report.profiles:
        heads = columns(report)
        rows = [cells(report, row) for row in report.rows(profile)]
        parts.append(f"Profile **{profile}**: {meaning(report, profile)}.")
        parts.append(_aligned([heads, *rows]))
    if report.content["failed"]:
        parts.append("Runs that are missing:")
        parts.append("\n".join(f"- {item['run']}: {item['reason']}" for item in report.content["failed"]))
    return "\n\n".join(parts) + "\n"


def csv_text(report: Report) -> str:
    """One line a row of report.json, without the figures of single frames."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_FIELDS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(report.content["rows"])
    return buffer.getvalue()


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) if column < 2 else cell.rjust(width)
                               for column, (cell, width) in enumerate(zip(row, widths, strict=True))) + " |"
             for row in rows]
    rule = "|" + "|".join("-" * (width + 2) if column < 2 else "-" * (width + 1) + ":"
                          for column, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _decibels(value: float | None) -> str:
    return "∞" if value is None else f"{value:.2f}"


def _is_video(report: Report) -> bool:
    return report.content["dataset"]["dtype"] == "uint8"
