"""The figures of a report: labelled axes with units, one look for all."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from hpc_vsr.report.collect import BASELINES, Report

STYLE = {"font.family": "sans-serif", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
         "axes.grid": True, "grid.color": "#e3e6ea", "grid.linewidth": 0.8, "axes.edgecolor": "#8a93a0",
         "axes.labelcolor": "#2b333d", "text.color": "#2b333d", "xtick.color": "#5b6673", "ytick.color": "#5b6673",
         "axes.axisbelow": True, "legend.frameon": False, "lines.linewidth": 1.8, "svg.fonttype": "none",
         "svg.hashsalt": "hpc-vsr"}
RUN_COLOURS = ("#0b6e99", "#c0392b", "#2e7d32", "#7b3fa0", "#b8860b", "#00796b")
BASELINE_COLOURS = {"bicubic": "#9aa3ad", "wiener": "#5b6673"}
NAMES = {"lr": "LR", "bicubic": "bicubic", "wiener": "Wiener", "hr": "HR"}
ZOOM_SHARE = 5  # a zoomed crop is this fraction of the frame's shorter side


def training_curves(report: Report) -> str:
    """Training loss and validation PSNR over the steps, as SVG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.4, 3.4), layout="constrained")
        loss, psnr = figure.subplots(1, 2)
        for (name, curves), colour in zip(report.curves.items(), _colours(report.curves), strict=True):
            if curves["training"]:
                steps, values = zip(*curves["training"], strict=True)
                loss.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
                loss.plot(steps, _smooth(values), color=colour, label=name)
            if curves["validation"]:
                psnr.plot(*zip(*curves["validation"], strict=True), "o-", color=colour, markersize=4, label=name)
        loss.set(xlabel="step", ylabel="training loss (values 0..1)")
        psnr.set(xlabel="step", ylabel="validation PSNR (dB)")
        for axes in (loss, psnr):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if axes.has_data():
                axes.legend()
        return _svg(figure)


def psnr_over_frames(report: Report, profile: str) -> str:
    """PSNR of every method on every frame of the split, as SVG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.4, 3.2), layout="constrained")
        axes = figure.subplots()
        for row in report.rows(profile):
            frames = row["per_frame"]["frame"]
            values = [np.nan if value is None else value for value in row["per_frame"]["psnr"]]
            axes.plot(frames, values, label=NAMES.get(row["method"], row["method"]),
                      color=_method_colour(report, row["method"]),
                      linestyle="--" if row["method"] in BASELINES else "-")
        axes.set(xlabel="frame of the source", ylabel=f"PSNR (dB, {profile})")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
        return _svg(figure)


def can_compare(report: Report) -> bool:
    """Whether the baselines and a network have pictures of the same frames."""
    return bool(_pictured(report)) and {"lr", "hr", *BASELINES} <= report.pictures.keys()


def _pictured(report: Report) -> list[str]:
    """Runs with pictures, the best first."""
    return [row["method"] for row in report.rows(report.profiles[0])
            if row["method"] not in BASELINES and row["method"] in report.pictures]


def comparison(report: Report, index: int) -> bytes:
    """LR, the baselines, the best run and HR side by side: whole frame, zoomed crop and error map; PNG."""
    best = _pictured(report)[0]
    columns = ["lr", "bicubic", "wiener", best, "hr"]
    pictures = {name: _displayable(report, report.pictures[name][index]) for name in columns}
    top, left, side = _busiest_square(pictures["hr"])
    scale = pictures["hr"].shape[0] // pictures["lr"].shape[0]
    frame = report.pictures["frame"][index]
    psnrs = {row["method"]: dict(zip(row["per_frame"]["frame"], row["per_frame"]["psnr"], strict=True))[int(frame)]
             for row in report.rows(report.profiles[0])}
    height, width = pictures["hr"].shape[:2]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        ratio = height / width
        figure = Figure(figsize=(15, 2.75 * (1 + 2 * ratio) + 0.9), layout="constrained", dpi=110)
        figure.get_layout_engine().set(h_pad=0.02, w_pad=0.02, hspace=0, wspace=0)
        grid = figure.subplots(3, len(columns), height_ratios=[ratio, 1, ratio], squeeze=False)
        image = None
        for column, name in enumerate(columns):
            shown, zoom, difference = grid[:, column]
            label = NAMES.get(name, name)
            value = psnrs.get(name)
            shown.set_title(f"{label}\n{value:.2f} dB" if value is not None else f"{label}\n ", fontsize=12)
            factor = scale if name == "lr" else 1
            _show(shown, pictures[name])
            shown.add_patch(Rectangle((left / factor - 0.5, top / factor - 0.5), side / factor, side / factor,
                                      fill=False, edgecolor="#ffb000", linewidth=1.5))
            rows, columns_ = (slice(start // factor, (start + side) // factor) for start in (top, left))
            _show(zoom, pictures[name][rows, columns_])
            if name in ("lr", "hr"):
                difference.set_axis_off()
            else:
                image = _show_error(difference, pictures[name], pictures["hr"])
        for axes, text in zip(grid[:2, 0], ("whole frame", f"{side} x {side} HR pixels"), strict=True):
            axes.set_ylabel(text)
        bar = figure.colorbar(image, cax=grid[2, 0].inset_axes((0.62, 0.1, 0.06, 0.8)), ticklocation="left")
        bar.set_label("SR - HR\n(grey levels)")
        figure.suptitle(f"frame {frame} of {report.content['dataset']['source']['name']}", fontsize=13)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()


def png_uri(png: bytes) -> str:
    """A PNG as a data URI, so that a page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _show(axes, picture: np.ndarray) -> None:
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    _hide_frame(axes)


def _hide_frame(axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _show_error(axes, picture: np.ndarray, hr: np.ndarray):
    error = picture.astype(np.float32) - hr.astype(np.float32)
    image = axes.imshow(error.mean(axis=2) if error.ndim == 3 else error, cmap="RdBu_r", vmin=-64, vmax=64,
                        interpolation="nearest")
    _hide_frame(axes)
    return image


def _displayable(report: Report, frame: np.ndarray) -> np.ndarray:
    """(C, H, W) stored values to (H, W) or (H, W, 3) uint8; a field spans its training range."""
    dataset = report.content["dataset"]
    offset, extent = (dataset["normalisation"][key] for key in ("offset", "extent"))
    shown = np.clip(np.rint((frame - offset) * (255 / extent)), 0, 255).astype(np.uint8)
    return shown[0] if len(shown) == 1 else shown.transpose(1, 2, 0)


def _busiest_square(picture: np.ndarray) -> tuple[int, int, int]:
    """Top, left and side of the square with the most contrast, on even pixels; where a difference is to be seen."""
    grey = picture.mean(axis=2) if picture.ndim == 3 else picture.astype(np.float64)
    side = max(16, min(grey.shape) // ZOOM_SHARE // 4 * 4)
    sums = [np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0))) for values in (grey, grey**2)]
    mean, square = ((s[side:, side:] - s[:-side, side:] - s[side:, :-side] + s[:-side, :-side]) / side**2 for s in sums)
    variance = (square - mean**2)[::4, ::4]
    top, left = np.unravel_index(variance.argmax(), variance.shape)
    return 4 * int(top), 4 * int(left), side


def _smooth(values: Sequence[float], width: int = 9) -> np.ndarray:
    """Running mean over a centred window that shrinks at the ends."""
    reach = width // 2
    return np.array([np.mean(values[max(0, index - reach) : index + reach + 1]) for index in range(len(values))])


def _colours(names) -> list[str]:
    return [RUN_COLOURS[index % len(RUN_COLOURS)] for index in range(len(names))]


def _method_colour(report: Report, method: str) -> str:
    if method in BASELINE_COLOURS:
        return BASELINE_COLOURS[method]
    names = list(report.curves)
    return RUN_COLOURS[names.index(method) % len(RUN_COLOURS)]


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg"):], flags=re.DOTALL)
