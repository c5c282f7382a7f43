"""Every method's pictures of the same frames, for the viewer that lays two of them over each other."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from hpc_vsr.report.collect import Report
from hpc_vsr.report.figures import NAMES
from hpc_vsr.report.pictures import can_compare, displayable, in_colours, mask_gaps, pictured, png_uri

MOST_RUNS = 6  # the best ones, so that the page stays small with a hundred runs


@dataclass(frozen=True)
class Viewer:
    """Values that the template shows, and `data` (JSON values), which its script reads."""

    frames: list[str]
    note: str
    data: dict[str, Any]
    variables: list[str]


def make_viewer(report: Report) -> Viewer | None:
    """Return the pictures of LR, the baselines, the best runs and HR; None if there is nothing to compare."""
    if not can_compare(report):
        return None
    runs = pictured(report)
    names = ["lr", "bicubic", "wiener", *runs[:MOST_RUNS], "hr"]
    shown = range(len(report.pictures["frame"]))
    frames = [report.picture_name(index) if report.dataset.is_collection else str(report.pictures["frame"][index])
              for index in shown]
    sizes: list[tuple[int, int]] = []
    pictures: dict[str, list[str]] = {name: [] for name in names}
    channels = range(len(report.variables) if report.has_variables else 1)
    # all frames of the first variable, then those of the next one
    for channel, index in itertools.product(channels, shown):
        values = {name: displayable(report, report.pictures[name][index], channel) for name in names}
        mask_gaps(values)
        hr = values["hr"]
        sizes.append((hr.shape[1], hr.shape[0]))
        for name in names:
            pictures[name].append(png_uri(_png(values[name], hr, report.is_video)))
    psnr = [report.picture_psnr(index, channel) for channel in channels for index in shown]
    methods = [{"name": NAMES.get(name, name), "pictures": pictures[name],
                "psnr": [found.get(name) for found in psnr]} for name in names]
    note = f"The {MOST_RUNS} best of {len(runs)} runs." if len(runs) > MOST_RUNS else ""
    return Viewer(frames, note, {"frames": frames, "sizes": sizes, "methods": methods,
                                 "left": names.index("bicubic"), "right": names.index(runs[0])},
                  report.dataset.channels if report.has_variables else [])


def _png(values: np.ndarray, hr: np.ndarray, is_video: bool) -> bytes:
    """Return a picture as PNG: grey levels or RGB as they are, a field in colours over the range of HR."""
    rgb = values if is_video else in_colours(values, hr)
    coded = rgb if rgb.ndim == 2 else cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", coded, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
