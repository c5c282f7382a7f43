"""The tables of a report: rows of text for the page, for Markdown and for CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpc_vsr.evaluation.record import BASELINES, Row
from hpc_vsr.report.ablation import Group, order, varied_settings
from hpc_vsr.report.collect import Report
from hpc_vsr.report.published import RAW, SOURCES, Ours
from hpc_vsr.system.config import ABSENT, as_dict

MEANINGS = {
    "paper": "Y of BT.601 in full range, 8 bit, 2 pixels cut at each side; SSIM with scikit-image's defaults",
    "paper, field": "values 0..1 on the training split, 2 pixels cut at each side; SSIM with scikit-image's defaults",
    "sr": "Y of BT.601 in studio range, 8 bit, as many pixels cut at each side as the scale; "
          "SSIM of Wang et al. 2004",
    "field": "physical units, whole frame; PSNR and SSIM for the range of the training split; 99 %, 99.9 %: quantiles "
             "of the absolute value, SR minus HR",
}
NAMES = {"wiener": "Wiener"}
MOST_NETWORKS = 6  # columns of the table of clips
CSV_FIELDS = ("method", "model", "params", "flops", "split", "profile", "frames", "mse", "psnr", "psnr_pooled", "ssim",
              "tof", "warp_error", "rmse", "bias", "q99_error", "q999_error", "log_spectral_distance", "band_large",
              "band_medium", "band_small", "effective_resolution", "lr_consistency", "seconds_per_frame", "variable",
              "units")


@dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes
    ----------
    title, meaning : str
    heads : list of str
    rows : list of list of str
    text_columns : tuple of int
        Columns that hold text; the others hold numbers.
    """

    title: str
    meaning: str
    heads: list[str]
    rows: list[list[str]]
    text_columns: tuple[int, ...] = (0, 1)


def result_tables(report: Report) -> list[Table]:
    """Return the rows of the report, one table per profile, and one per variable in the profile "field"."""
    return [_profile_table(report, profile, variable) for profile, variable in report.parts]


def clips_table(report: Report) -> Table | None:
    """Return the PSNR of the baselines and the best networks on each clip; None for a data set of one source."""
    clips = report.of_clips(report.main_profile)
    if not clips:
        return None
    names = {run.name for run in report.runs}
    ranked = [row.method for row in report.ranked(report.main_profile)]
    networks = [method for method in ranked if method in names][:MOST_NETWORKS]
    shown = [method for method in ranked if method in BASELINES] + networks
    rows = []
    for number, (clip, own) in enumerate(clips.items(), start=1):
        best, wiener = own[networks[0]], own["wiener"]
        gain = "–" if None in (best.psnr, wiener.psnr) else f"{best.psnr - wiener.psnr:+.2f}"
        rows.append([clip, str(number), str(best.frames), *(_decibels(own[method].psnr) for method in shown), gain,
                     _ssim(best)])
    means = ", ".join(f"{NAMES.get(method, method)} {value:.2f}" for method in shown if math.isfinite(
        value := _mean([own[method].psnr for own in clips.values()])))
    return Table("Clips", f"PSNR in dB ({report.main_profile}) on each clip; mean of the clips, each counted alike: "
                 f"{means}", ["clip", "number", "frames", *(NAMES.get(method, method) for method in shown),
                              f"{networks[0]} over Wiener", f"SSIM of {networks[0]}"], rows, (0,))


def _mean(values: Sequence[float | None]) -> float:
    finite = [value for value in values if value is not None]
    return math.fsum(finite) / len(finite) if finite else math.nan


def comparison_table(report: Report) -> Table | None:
    """Return the networks side by side (size, cost, quality, spread over seeds); None for a single run."""
    groups = report.groups()
    if len(report.runs) < 2:
        return None
    baseline = next(row.psnr for row in report.ranked(report.main_profile) if row.method == "wiener")
    rows = []
    for group in groups:
        rows.append([group.name, group.model, f"{group.num_parameters:,}", f"{group.flops / 1e9:.1f}",
                     _with_spread(group), "–" if baseline is None else f"{group.psnr - baseline:+.2f}",
                     f"{group.ssim:.4f}", f"{group.seconds:.3f}", str(len(group.runs))])
    return Table("Networks", f"ranked by PSNR ({report.main_profile}); spread: standard deviation over seeds; "
                 "a multiplication and an addition count as two operations",
                 ["run", "network", "parameters", "GFLOP / frame", "PSNR (dB)", "over Wiener (dB)", "SSIM", "s / frame",
                  "runs"], rows)


def ablation_table(report: Report) -> Table | None:
    """Return the settings in which runs differ, with their results; None if they differ in none."""
    keys = varied_settings(report.runs)
    groups = [group for group in report.groups() if group.settings]
    if not keys or len(groups) < 2:
        return None
    level = report.level
    level_head = [f"epochs to {level:g} dB"] if level is not None else []
    rows = []
    for group in sorted(groups, key=lambda group: [order(value) for value in group.settings.values()]):
        reached = [] if level is None else ["–" if group.epochs_to_level is None else f"{group.epochs_to_level:.3g}"]
        rows.append([*(_setting(value) for value in group.settings.values()), _with_spread(group),
                     f"{group.ssim:.4f}", *reached])
    meaning = "the settings in which the runs differ, and their results"
    if level is not None:
        meaning += "; epochs until the validation PSNR of the averaged weights first reached that level"
    heads = [*(key.split(".")[-1] for key in keys), "PSNR (dB)", "SSIM", *level_head]
    return Table("Settings", meaning, heads, rows, tuple(range(len(keys))))


def published_table(report: Report) -> Table | None:
    """Return the paper's own table with the published figures beside ours; None if no run asked for it."""
    published = report.published
    if not published:
        return None
    rows = []
    for item in published:
        label = item.network + (f" ({item.note})" if item.note else "")
        theirs = [_number(item.mse), _decibels(item.psnr), f"{item.ssim:.4f}"]
        for position, ours in enumerate(item.ours or [None]):
            shown = [label, *theirs] if position == 0 else ["", "", "", ""]
            rows.append([*shown, "not trained", "", "", ""] if ours is None else
                        [*shown, ours.run, _number(ours.mse), _decibels(ours.psnr), _ssim(ours)])
    table = published[0].table
    return Table(f"The paper's {table.capitalize()} table", f"published on {SOURCES[table]}. {RAW}",
                 ["published", "MSE", "PSNR (dB)", "SSIM", "ours", "MSE", "PSNR (dB)", "SSIM"], rows, (0, 4))


def protocol_differences(report: Report) -> list[tuple[str, str]]:
    """Return (run, how it differs from the published protocol besides its data)."""
    seen = {ours.run: "; ".join(ours.differences) or "none" for item in report.published
            for ours in item.ours if item.network != "raw"}
    return list(seen.items())


def flow_table(report: Report) -> Table | None:
    """Return how well the flows of flow4x carry a neighbour onto the centre frame; None if no run has a flow."""
    runs = [run for run in report.runs if run.flow]
    if not runs:
        return None
    units = ("grey levels" if report.is_video else "values 0..1 on the training split" if report.has_variables
             else report.dataset.units)
    rows = [[run.name, *(f"{value:.4g}" for value in (run.flow.learned, run.flow.dis, run.flow.zero)),
             str(run.flow.pairs)] for run in runs]
    return Table("Flow", "root mean square difference between the HR centre frame and its HR neighbours after warping "
                 f"by a flow found on LR frames, in {units}",
                 ["run", "learned", "DIS", "no motion", "pairs of frames"], rows, (0,))


def calibration_table(report: Report) -> Table | None:
    """Return how well the runs predict their error; None if none does."""
    named = report.has_variables
    rows = [[run.name, *([found.variable] if named else []), f"{found.rms_predicted:#.4g}", f"{found.rms_actual:#.4g}",
             *(f"{100 * share:.1f}" for share in found.within)]
            for run in report.runs if run.calibrations is not ABSENT for found in run.calibrations]
    if not rows:
        return None
    units = "the units of each variable" if named else report.dataset.units
    return Table("Predicted error", f"predicted and actual error as root mean square over the pixels, in {units}, and "
                 "the share of the pixels whose error is within 1, 2 and 3 times the predicted one; a Gaussian "
                 "distribution has 68.3, 95.4 and 99.7 %",
                 ["run", *(["variable"] if named else []), "predicted", "actual", "1 (%)", "2 (%)", "3 (%)"], rows,
                 (0, 1) if named else (0,))


def markdown(report: Report, lead: str) -> str:
    """Return the whole report as Markdown, with aligned tables."""
    dataset = report.dataset
    parts = [f"# {dataset.title}, {dataset.degradation.scale} times", lead]
    optional = [clips_table(report), comparison_table(report), ablation_table(report), flow_table(report),
                calibration_table(report), published_table(report)]
    for table in [*result_tables(report), *filter(None, optional)]:
        parts += [f"**{table.title}**: {table.meaning.rstrip('.')}.", _aligned(table)]
    if report.published:
        parts.append("Differences from the published protocol, besides the data:")
        parts.append("\n".join(f"- {run}: {text}" for run, text in protocol_differences(report)))
    if report.failed:
        parts.append("Missing runs:")
        parts.append("\n".join(f"- {item.run}: {item.reason}" for item in report.failed))
    return "\n\n".join(parts) + "\n"


def csv_text(report: Report) -> str:
    """Return one line per row of report.json, without the figures of single frames."""
    buffer = io.StringIO()
    fields = [*CSV_FIELDS, "clip"] if report.dataset.is_collection else CSV_FIELDS
    writer = csv.DictWriter(buffer, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_dict(row) for row in report.rows)
    return buffer.getvalue()


def _profile_table(report: Report, profile: str, variable: str) -> Table:
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("method", lambda row: NAMES.get(row.method, row.method))]
    if profile == "field":
        columns += [("RMSE", _number_of("rmse")), ("bias", _number_of("bias")),
                    ("99 %", _number_of("q99_error")), ("99.9 %", _number_of("q999_error")),
                    ("PSNR (dB)", lambda row: _decibels(row.psnr)), ("SSIM", _ssim),
                    ("log-spectral (dB)", lambda row: _decibels(row.log_spectral_distance)),
                    *((f"{band} (dB)", _decibels_of(f"band_{band}")) for band in ("large", "medium", "small")),
                    ("resolution (px)", lambda row: _number(row.effective_resolution)),
                    ("LR", _number_of("lr_consistency"))]
        named = variable is not ABSENT
        units = next(one.units for one in report.variables if not named or one.name == variable)
        meaning = f"{MEANINGS['field']}; RMSE, bias, quantiles and LR in {units}"
        return Table(f"field, {variable}" if named else "field", meaning, [head for head, _ in columns],
                     [[text(row) for _, text in columns] for row in report.ranked(profile, variable)],
                     text_columns=(0,))
    columns += [("network", lambda row: row.model),
                ("parameters", lambda row: f"{row.params:,}" if row.params else "–"),
                ("frames", lambda row: str(row.frames)), ("MSE", _number_of("mse")),
                ("PSNR (dB)", lambda row: _decibels(row.psnr)),
                ("pooled (dB)", lambda row: _decibels(row.psnr_pooled)), ("SSIM", _ssim)]
    if report.is_video:
        columns += [("tOF (px)", _optional("tof")), ("warp (levels)", _optional("warp_error"))]
    columns.append(("s / frame", lambda row: f"{row.seconds_per_frame:.3f}"))
    meaning = MEANINGS[profile if report.is_video else f"{profile}, field"]
    if report.has_variables:
        meaning += f"; means over {', '.join(report.dataset.channels)}, each on its own range"
    if report.dataset.dtype != "uint8":
        meaning = meaning.replace("8 bit", "not rounded")
    return Table(profile, meaning, [head for head, _ in columns],
                 [[text(row) for _, text in columns] for row in report.ranked(profile)])


def _with_spread(group: Group) -> str:
    return _decibels(group.psnr) + ("" if math.isnan(group.psnr_spread) else f" ± {group.psnr_spread:.2f}")


def _number_of(key: str) -> Callable[[Row], str]:
    return lambda row: _number(getattr(row, key))


def _decibels_of(key: str) -> Callable[[Row], str]:
    return lambda row: "–" if getattr(row, key) is None else f"{getattr(row, key):+.2f}"


def _optional(key: str) -> Callable[[Row], str]:
    return lambda row: "" if getattr(row, key) in (ABSENT, None) else f"{getattr(row, key):.3f}"


def _ssim(row: Row | Ours) -> str:
    return "–" if row.ssim is None else f"{row.ssim:.4f}"


def _setting(value) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _aligned(table: Table) -> str:
    cells = [table.heads, *table.rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.heads))]
    lines = ["| " + " | ".join(cell.ljust(width) if column in table.text_columns else cell.rjust(width)
                               for column, (cell, width) in enumerate(zip(row, widths, strict=True))) + " |"
             for row in cells]
    rule = "|" + "|".join("-" * (width + 2) if column in table.text_columns else "-" * (width + 1) + ":"
                          for column, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _decibels(value: float | None) -> str:
    return "∞" if value is None or math.isinf(value) else f"{value:.2f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
