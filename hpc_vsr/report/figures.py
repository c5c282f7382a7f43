"""The figures of a report: labelled axes with units, all in one style."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from hpc_vsr.data.info import Variable
from hpc_vsr.evaluation.record import BASELINES, Row
from hpc_vsr.metrics.field import RESOLVED
from hpc_vsr.report.ablation import ablation_lines, varied_settings
from hpc_vsr.report.collect import Report
from hpc_vsr.system.config import ABSENT

STYLE = {"font.family": "sans-serif", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
         "axes.grid": True, "grid.color": "#e3e6ea", "grid.linewidth": 0.8, "axes.edgecolor": "#8a93a0",
         "axes.labelcolor": "#2b333d", "text.color": "#2b333d", "xtick.color": "#5b6673", "ytick.color": "#5b6673",
         "axes.axisbelow": True, "legend.frameon": False, "lines.linewidth": 1.8, "svg.fonttype": "none",
         "svg.hashsalt": "hpc-vsr"}
RUN_COLOURS = ("#0b6e99", "#c0392b", "#2e7d32", "#7b3fa0", "#b8860b", "#00796b")
BASELINE_COLOURS = {"bicubic": "#9aa3ad", "wiener": "#5b6673"}
NAMES = {"lr": "LR", "bicubic": "bicubic", "wiener": "Wiener", "hr": "HR"}
WAVENUMBERS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # cycles per HR pixel
MAX_PANELS, MAX_LEGEND = 9, 10
MAX_TIPS = 20  # lines whose values the page shows under the pointer
MOST_NAMED = 25  # clips whose names stand at an axis
MAX_MARKED = 12  # points up to which a curve has markers
LOG_FROM = 8  # ratio of the largest to the smallest value from which an axis is logarithmic


def training_curves(report: Report) -> str:
    """Return training loss and validation PSNR over the steps, as SVG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.4, 3.4), layout="constrained")
        loss, psnr = figure.subplots(1, 2)
        for (name, curves), colour in zip(report.curves.items(), _colours(report.curves), strict=True):
            if curves.training:
                steps, values = zip(*curves.training, strict=True)
                loss.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
                loss.plot(steps, _smooth(values), "o-" if len(steps) < MAX_MARKED else "-", color=colour, markersize=3,
                          label=name)
            if curves.validation:
                steps, values, _ = zip(*curves.validation, strict=True)
                psnr.plot(steps, values, "o-", color=colour, markersize=4, label=name)
        loss.set(xlabel="step", ylabel="training loss")
        psnr.set(xlabel="step", ylabel="validation PSNR (dB)")
        for axes in (loss, psnr):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            if axes.has_data() and len(report.curves) <= MAX_LEGEND:
                axes.legend(fontsize=9 if len(report.curves) <= 6 else 7)
        return _svg(figure)


def psnr_over_frames(report: Report, profile: str) -> str:
    """Return the PSNR of every method on every frame of the split, as SVG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.4, 3.2), layout="constrained")
        axes = figure.subplots()
        for row in _networks_and_baselines(report, report.ranked(profile)):
            frames = row.per_frame.frame
            values = [np.nan if value is None else value for value in row.per_frame.psnr]
            axes.plot(frames, values, label=NAMES.get(row.method, row.method),
                      color=method_colour(report, row.method),
                      linestyle="--" if row.method in BASELINES else "-")
        axes.set(xlabel="frame of the source", ylabel=f"PSNR (dB, {profile})")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
        return _svg(figure)


def psnr_over_clips(report: Report, profile: str) -> str:
    """Return the PSNR of every method on every clip of a collection, as SVG; the clips are in the order of names."""
    clips = report.of_clips(profile)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.4, 3.2), layout="constrained")
        axes = figure.subplots()
        for whole in _networks_and_baselines(report, report.ranked(profile)):
            values = [np.nan if own[whole.method].psnr is None else own[whole.method].psnr for own in clips.values()]
            axes.plot(range(1, len(clips) + 1), values, "o--" if whole.method in BASELINES else "o-", markersize=4,
                      label=NAMES.get(whole.method, whole.method), color=method_colour(report, whole.method))
        axes.set(xlabel="clip", ylabel=f"PSNR (dB, {profile})")
        if len(clips) <= MOST_NAMED:
            axes.set_xticks(range(1, len(clips) + 1), list(clips), rotation=30, ha="right")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
        return _svg(figure)


def power_spectra(report: Report, variable: Variable) -> str:
    """Return the power spectra of HR and every method, and of the errors relative to HR, over wavenumber, as SVG.

    They are those of one variable of the report.
    """
    rows, units = report.ranked("field", variable.name if report.has_variables else ABSENT), variable.units
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.4, 4.0), layout="constrained")
        power, share = figure.subplots(1, 2)
        k = np.array(rows[0].spectrum.wavenumber)
        hr = np.array(rows[0].spectrum.hr)
        power.loglog(k, hr, color="#1f2933", linewidth=2.4, label="HR")
        for row in _networks_and_baselines(report, rows):
            look = {"label": NAMES.get(row.method, row.method), "color": method_colour(report, row.method),
                    "linestyle": "--" if row.method in BASELINES else "-"}
            power.loglog(k, row.spectrum.sr, **look)
            share.loglog(k, np.array(row.spectrum.error) / hr, **look)
        share.axhline(RESOLVED, color="#8a93a0", linewidth=1, linestyle=":")
        share.annotate("resolved below", (k[0], RESOLVED), textcoords="offset points", xytext=(2, 4), fontsize=8)
        for axes in (power, share):
            axes.set_xticks(WAVENUMBERS, [f"{tick:g}" for tick in WAVENUMBERS])
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlim(k[0] * 0.9, 0.55)
        power.set(xlabel="wavenumber (cycles per HR pixel)", ylabel=f"power ({units})²")
        share.set(xlabel="wavenumber (cycles per HR pixel)", ylabel="power of the error / power of HR")
        share.legend(fontsize=9)
        power.legend(fontsize=9)
        return _svg(figure)


def calibrations(report: Report) -> str | None:
    """Return the actual error over the predicted one of every run that predicts its error, as SVG; None if none does.

    Several variables have a panel each.
    """
    runs = [run for run in report.runs if run.calibrations is not ABSENT][:MAX_LEGEND]
    if not runs:
        return None
    number = min(MAX_PANELS, len(runs[0].calibrations))
    with matplotlib.rc_context(STYLE):
        columns = min(3, number)
        lines = -(-number // columns)
        figure = Figure(figsize=(4.6 * columns, 4.0 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False)
        for index, axes in zip(range(number), grid.flat, strict=False):
            for run in runs:
                found = run.calibrations[index]
                axes.loglog(found.predicted, found.actual, "o-", color=method_colour(report, run.name), markersize=4,
                            label=run.name)
            limits = axes.get_xlim()
            axes.loglog(limits, limits, color="#8a93a0", linewidth=1, linestyle=":", label="as predicted", zorder=0)
            of = "" if found.variable is ABSENT else f" of {found.variable}"
            axes.set(xlabel=f"predicted error{of} ({found.units})", ylabel=f"actual error ({found.units})",
                     xlim=limits)
            axes.legend(fontsize=9)
        for axes in list(grid.flat)[number:]:
            axes.set_axis_off()
        return f'<div style="max-width: {24 * columns}rem">{_svg(figure)}</div>'


def ablations(report: Report) -> str | None:
    """Return PSNR over each setting in which runs differ, as SVG; None if there is nothing to draw."""
    groups = report.groups()
    panels = [(key, lines) for key in varied_settings(report.runs)
              if (lines := ablation_lines(groups, key))][:MAX_PANELS]
    if not panels:
        return None
    with matplotlib.rc_context(STYLE):
        columns = min(3, len(panels))
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(3.8 * columns, 3.3 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, (key, lines) in zip(grid.flat, panels, strict=False):
            for (others, points), colour in zip(lines, _colours(lines), strict=True):
                values = [value for value, _ in points]
                numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
                x = values if numeric else [str(value) for value in values]
                spread = [0 if np.isnan(group.psnr_spread) else group.psnr_spread for _, group in points]
                label = ", ".join(f"{name.split('.')[-1]} {value}" for name, value in others.items())
                axes.errorbar(x, [group.psnr for _, group in points], yerr=spread if any(spread) else None,
                              fmt="o-" if numeric else "o", color=colour, markersize=5, capsize=3, label=label)
                if numeric and min(values) > 0 and max(values) / min(values) >= LOG_FROM:
                    axes.set_xscale("log")
            axes.set(xlabel=key, ylabel=f"PSNR (dB, {report.main_profile})")
            if all(isinstance(value, int) for _, points in lines for value, _ in points):
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if len(lines) > 1 and len(lines) <= MAX_LEGEND:
                axes.legend(fontsize=7)
        for axes in list(grid.flat)[len(panels):]:
            axes.set_axis_off()
        return f'<div style="max-width: {24 * columns}rem">{_svg(figure)}</div>'


def _networks_and_baselines(report: Report, rows: list[Row]) -> list[Row]:
    """Return the best networks, as many as a legend can name, and the baselines; no methods derived from them."""
    names = {run.name for run in report.runs}
    return [*[row for row in rows if row.method in names][:MAX_LEGEND],
            *[row for row in rows if row.method in BASELINES]]


def _smooth(values: Sequence[float], width: int = 9) -> np.ndarray:
    """Return the running mean over a centred window that shrinks at the ends."""
    reach = width // 2
    return np.array([np.mean(values[max(0, index - reach) : index + reach + 1]) for index in range(len(values))])


def _colours(names) -> list[str]:
    return [RUN_COLOURS[index % len(RUN_COLOURS)] for index in range(len(names))]


def method_colour(report: Report, method: str) -> str:
    """Return the colour of a method in all figures; methods derived from a run's network have the run's colour."""
    if method in BASELINE_COLOURS:
        return BASELINE_COLOURS[method]
    run = next((name for name in report.curves if method == name or method.startswith(f"{name} ")), method)
    return RUN_COLOURS[list(report.curves).index(run) % len(RUN_COLOURS)]


def names_as_they_are(figure: Figure) -> None:
    """Turn off formulas in titles and labels.

    They hold names and units from the user, in which a dollar sign is only a dollar sign.
    """
    texts = list(figure.texts)
    for axes in figure.findobj(Axes):
        legend = axes.get_legend()
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *(legend.get_texts() if legend else ())]
    for text in texts:
        text.set_parse_math(False)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    names_as_they_are(figure)
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg"):], flags=re.DOTALL)
    charts = html.escape(json.dumps([_chart(axes) for axes in figure.axes], separators=(",", ":")))
    return text.replace("<svg", f'<svg data-charts="{charts}"', 1)


def _chart(axes: Axes) -> dict:
    """Return the place of axes in their figure and the points of their named lines.

    The place is in fractions from the top left. The script of the page shows the values under the pointer from this.
    """
    box = axes.get_position()
    lines = [line for line in axes.lines if not line.get_label().startswith("_")][:MAX_TIPS]
    return {
        "box": [round(side, 5) for side in (box.x0, 1 - box.y1, box.x1, 1 - box.y0)],
        "x": [*axes.get_xlim(), axes.get_xscale() == "log"], "xlabel": axes.get_xlabel(), "ylabel": axes.get_ylabel(),
        "lines": [{"name": line.get_label(), "x": _rounded(line.get_xdata()), "y": _rounded(line.get_ydata())}
                  for line in lines]}


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in np.asarray(values, float)]
