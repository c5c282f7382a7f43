"""Pictures of one frame side by side: LR, the baselines, the networks and HR; whole, enlarged, and their errors.

Video is shown in grey levels or colour. A field is shown in its physical units, with its coordinates, a colour bar and
a perceptually uniform colour map.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import matplotlib.colors
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from hpc_vsr.data.info import AxisInfo
from hpc_vsr.evaluation.record import BASELINES, ClipSummary
from hpc_vsr.report.collect import Report
from hpc_vsr.report.figures import NAMES, STYLE, names_as_they_are
from hpc_vsr.system.config import ABSENT

ZOOM_SHARE = 5  # a zoomed crop has the frame's shorter side divided by this
LEAST_SIDE, STEP = 16, 4  # HR pixels: of a zoomed crop, and at most from one place that is tried for it to the next
MOST_NETWORKS = 3  # columns of networks
MAX_GAP = 0.05  # share of a zoomed crop that may have no value
GAP_COLOUR = "#c9ced6"
FIELD_MAP, ERROR_MAP = "viridis", "RdBu_r"
VIDEO_ERROR = 64  # grey levels at the ends of the error's colour bar
TAIL = 0.2  # percent of the values beyond the ends of a field's colour bar


@dataclass(frozen=True)
class Look:
    """Settings with which the values of a data set are shown.

    Attributes
    ----------
    colours : dict
        Arguments of `imshow`.
    error_limit : float
        Error at the ends of the colour bar of errors.
    value_label, error_label : str
        Labels of the colour bars, with units.
    axes : list of AxisInfo or None
        Coordinates of rows and columns of a field; None for video.
    """

    colours: dict
    error_limit: float
    value_label: str
    error_label: str
    axes: list[AxisInfo] | None


def can_compare(report: Report) -> bool:
    """Check whether the baselines and a network have pictures of the same frames."""
    return bool(pictured(report)) and {"lr", "hr", *BASELINES} <= report.pictures.keys()


def comparison(report: Report, index: int, channel: int = 0) -> bytes:
    """Return LR, the baselines, the best run of each network and HR as PNG: whole frame, zoomed crop and error map.

    `index` is the number of the picture, and `channel` that of the variable if there are several. Of more than three
    networks, the best three are shown, the best of them beside HR.
    """
    # values, colours, the square to enlarge, and the PSNR for the titles
    columns = ["lr", "bicubic", "wiener", *reversed(best_of_each_network(report)[:MOST_NETWORKS]), "hr"]
    pictures = {name: displayable(report, report.pictures[name][index], channel) for name in columns}
    mask_gaps(pictures)
    look = _choose_look(report, index, channel)
    scale = report.dataset.degradation.scale
    top, left, side = busiest_square(pictures["hr"], scale)
    psnrs = report.picture_psnr(index, channel)
    height, width = pictures["hr"].shape[:2]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        ratio = height / width
        figure = Figure(figsize=(3 * len(columns), 2.75 * (1 + 2 * ratio) + 1.2), layout="constrained", dpi=110)
        figure.get_layout_engine().set(h_pad=0.02, w_pad=0.02, hspace=0, wspace=0)
        # one column for each method: whole frame, zoomed crop, error
        grid = figure.subplots(3, len(columns), height_ratios=[ratio, 1, ratio], squeeze=False)
        value_image = error_image = None
        for column, name in enumerate(columns):
            whole, zoom, difference = grid[:, column]
            value = psnrs.get(name)
            title = NAMES.get(name, name)
            whole.set_title(f"{title}\n{value:.2f} dB" if value is not None else f"{title}\n ", fontsize=12)
            factor = scale if name == "lr" else 1
            value_image = whole.imshow(pictures[name], interpolation="nearest", extent=_extent(look, (height, width)),
                                       aspect="auto", **look.colours)
            rows, columns_ = (slice(start // factor, (start + side) // factor) for start in (top, left))
            zoom.imshow(pictures[name][rows, columns_], interpolation="nearest", **look.colours)
            whole.add_patch(_mark(look, (height, width), top, left, side))
            for axes in (zoom, difference):
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            for axes in grid[:, column]:
                axes.set_facecolor(GAP_COLOUR)
            _label(whole, look, is_first=column == 0)
            if name in ("lr", "hr"):
                difference.set_axis_off()
            else:
                error_image = _show_error(difference, pictures[name], pictures["hr"], look)
        if look.axes is not None and _ascends(look.axes[0]):  # the larger coordinate, such as north, is on top
            for axes in grid.flat:
                axes.invert_yaxis()
        # labels and colour bars
        grid[1, 0].set_ylabel(f"{side} x {side} HR pixels")
        if look.axes is None:
            grid[0, 0].set_ylabel("whole frame")
        for image, cell, label in ((value_image, grid[2, -1], look.value_label), (error_image, grid[2, 0],
                                                                                look.error_label)):
            if image is value_image and look.axes is None:
                continue
            bar = figure.colorbar(image, cax=cell.inset_axes((0.06, 0.6, 0.88, 0.14)), orientation="horizontal")
            bar.set_label(label)
            bar.locator = MaxNLocator(3)
            bar.formatter.set_powerlimits((-2, 4))
            bar.update_ticks()
        named = f"{report.dataset.channels[channel]}, " if report.has_variables else ""
        figure.suptitle(f"{named}{report.picture_name(index)}", fontsize=13)
        names_as_they_are(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None}, bbox_inches="tight", pad_inches=0.1)
        return buffer.getvalue()


def in_colours(values: np.ndarray, hr: np.ndarray) -> np.ndarray:
    """Return a field, (H, W), in the colours of HR's range, or (H, W, 3) in 0..1 as it is; (H, W, 3) uint8.

    Gaps are grey.
    """
    low, high = np.nanpercentile(hr, [TAIL, 100 - TAIL])
    first = values if values.ndim == 2 else values[..., 0]
    if values.ndim == 2:
        values = matplotlib.colormaps[FIELD_MAP](np.nan_to_num((values - low) / ((high - low) or 1)))[..., :3]
    gap = np.array(matplotlib.colors.to_rgb(GAP_COLOUR))
    return (np.where(np.isnan(first)[..., None], gap, values) * 255).astype(np.uint8)


def png_uri(png: bytes) -> str:
    """Return a PNG as a data URI, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def pictured(report: Report) -> list[str]:
    """Return the networks that have pictures, the best first."""
    names = {run.name for run in report.runs}
    return [row.method for row in report.ranked(report.main_profile)
            if row.method in names and row.method in report.pictures]


def best_of_each_network(report: Report) -> list[str]:
    """Return the best pictured run of every network (delta, compact, ...), the best first."""
    network = {run.name: run.model.name for run in report.runs}
    best: dict[str, str] = {}
    for run in pictured(report):
        best.setdefault(network[run], run)
    return list(best.values())


def _choose_look(report: Report, index: int, channel: int) -> Look:
    dataset = report.dataset
    if report.is_video:
        return Look({"cmap": "gray", "vmin": 0, "vmax": 255}, VIDEO_ERROR, "", "SR - HR (grey levels)", None)
    hr, wiener = (report.pictures[name][index] for name in ("hr", "wiener"))
    if report.has_variables:
        hr, wiener = hr[channel], wiener[channel]
    low, high = np.nanpercentile(hr, [TAIL, 100 - TAIL])
    clip = _clip_of(report, index)
    source = clip.source
    units = dataset.units[channel] if report.has_variables else dataset.units
    limit = float(np.nanpercentile(np.abs(wiener - hr), 100 - TAIL)) or 1.0
    title = source.long_name[channel] if report.has_variables else source.long_name
    name = dataset.channels[channel] if title is ABSENT else title
    axes = _pixels(clip.hr_size) if source.coordinates in (ABSENT, []) else source.coordinates
    coloured = {"cmap": FIELD_MAP, "vmin": low, "vmax": high if high > low else low + 1}
    return Look(coloured, limit, f"{name} ({units})", f"SR - HR ({units})", axes)


def _clip_of(report: Report, index: int) -> ClipSummary:
    """Return the clip of which a picture is."""
    clips = report.dataset.all_clips
    if not report.dataset.is_collection:
        return clips[0]
    return next(clip for clip in clips if clip.name == str(report.pictures["clip"][index]))


def _pixels(sizes: tuple[int, int]) -> list[AxisInfo]:
    return [AxisInfo(name=name, units="pixels", size=size, first=0.0, last=size - 1.0)
            for name, size in zip(("row", "column"), sizes, strict=True)]


def _edges(axis: AxisInfo, size: int) -> tuple[float, float]:
    """Return where the first of `size` cells begins and the last one ends, in the units of the coordinate."""
    source_size = size if axis.size is ABSENT else axis.size
    if source_size < 2:
        return -0.5, size - 0.5
    spacing = (axis.last - axis.first) / (source_size - 1)
    return axis.first - spacing / 2, axis.first + spacing * (size - 0.5)


def _extent(look: Look, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    if look.axes is None:
        return -0.5, size[1] - 0.5, size[0] - 0.5, -0.5
    (top, bottom), (left, right) = (_edges(axis, count) for axis, count in zip(look.axes, size, strict=True))
    return left, right, bottom, top


def _ascends(axis: AxisInfo) -> bool:
    return axis.units not in ("grid points", "pixels") and axis.last > axis.first


def mask_gaps(pictures: dict[str, np.ndarray]) -> None:
    """Remove, in place, the values with which a field was filled where HR has none."""
    gaps = np.isnan(pictures["hr"])
    if not gaps.any():
        return
    for name, picture in pictures.items():
        factor = gaps.shape[0] // picture.shape[0]
        seen = gaps if factor == 1 else gaps.reshape(picture.shape[0], factor, -1, factor).all((1, 3))
        pictures[name] = np.where(seen, np.nan, picture)


def _mark(look: Look, size: tuple[int, int], top: int, left: int, side: int) -> Rectangle:
    x0, x1, y1, y0 = _extent(look, size)
    dx, dy = (x1 - x0) / size[1], (y1 - y0) / size[0]
    return Rectangle((x0 + left * dx, y0 + top * dy), side * dx, side * dy, fill=False, edgecolor="#ffb000",
                     linewidth=1.5)


def _label(axes, look: Look, is_first: bool) -> None:
    if look.axes is None:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return
    rows, columns = (f"{axis.name} ({axis.units})" if axis.units else axis.name for axis in look.axes)
    axes.set_xlabel(columns, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.locator_params(nbins=4)
    if is_first:
        axes.set_ylabel(rows, fontsize=8)
    else:
        axes.set_yticks([])


def _show_error(axes, picture: np.ndarray, hr: np.ndarray, look: Look):
    error = picture.astype(np.float64) - hr.astype(np.float64)
    return axes.imshow(error.mean(axis=2) if error.ndim == 3 else error, cmap=ERROR_MAP, vmin=-look.error_limit,
                       vmax=look.error_limit, interpolation="nearest", aspect="auto")


def displayable(report: Report, frame: np.ndarray, channel: int = 0) -> np.ndarray:
    """Convert (C, H, W) stored values to (H, W) or (H, W, 3): uint8 for video, physical units for a field.

    Of several variables it is the one of `channel`.
    """
    if report.has_variables:
        return frame[channel]
    if not report.is_video:
        normal = report.dataset.normalisation
        unit = np.clip((frame - normal.offset) / normal.extent, 0, 1)
        return frame[0] if len(frame) == 1 else unit.transpose(1, 2, 0)
    shown = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
    return shown[0] if len(shown) == 1 else shown.transpose(1, 2, 0)


def busiest_square(picture: np.ndarray, scale: int) -> tuple[int, int, int]:
    """Return top, left and side of the square with the most contrast; it consists of whole LR pixels.

    Differences between methods are most visible there.
    """
    grey = picture.mean(axis=2) if picture.ndim == 3 else picture.astype(np.float64)
    gaps = np.isnan(grey)
    grey = np.where(gaps, np.nanmean(grey), grey)
    grey = grey / (np.abs(grey).max() or 1)
    step = STEP // scale * scale
    side = max(-(-LEAST_SIDE // step), min(grey.shape) // ZOOM_SHARE // step) * step
    # variance in every square, from sums over rectangles
    sums = [np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0))) for values in (grey, grey**2, gaps.astype(float))]
    mean, square, missing = ((total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side])
                             / side**2 for total in sums)
    variance = np.where(missing > MAX_GAP, -1.0, square - mean**2)[::step, ::step]
    top, left = np.unravel_index(variance.argmax(), variance.shape)
    return step * int(top), step * int(left), side
