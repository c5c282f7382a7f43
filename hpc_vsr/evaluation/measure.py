"""Measures methods on the frames of a split: the rows of a report, and a few frames as pictures."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from hpc_vsr.data.clips import Clips
from hpc_vsr.data.manifest import Manifest
from hpc_vsr.data.samples import Split
from hpc_vsr.data.splits import REACH
from hpc_vsr.evaluation.methods import Method
from hpc_vsr.evaluation.record import Flow, Row
from hpc_vsr.evaluation.scores import HrFlow, Scores, list_parts
from hpc_vsr.metrics.image import flow_between, to_8bit
from hpc_vsr.models.enlarge import Enlarge
from hpc_vsr.models.flow import warp
from hpc_vsr.models.network import Network
from hpc_vsr.system.progress import Progress

FLOW_FRAMES = 12  # frames of the split on which a learned flow is measured
Pictures = dict[str, list[np.ndarray]]


def measure_split(clips: Clips, methods_of: Callable[[Manifest], Sequence[Method]], num_pictures: int,
                  device: torch.device) -> tuple[list[Row], Pictures]:
    """Measure methods on every frame of a split, clip by clip.

    Parameters
    ----------
    methods_of : callable
        Returns the methods for frames of the size of a clip; the same ones for every clip.

    Returns
    -------
    rows : list of Row
        One for each profile, variable and method, with the figures of every frame. For a collection the row is of all
        clips together, and a row for each clip, which has the figures of its frames, comes after those of all.
    pictures : dict
        "frame" and, for a collection, "clip": P values; "lr", "hr" and each method: P arrays (C, H, W) in stored
        values.
    """
    # the frames that are kept as pictures, and the methods for each size of frames
    kept = clips.spread_evenly(num_pictures)
    pictures: Pictures = {"frame": [centre for _, centre in kept]}
    if clips.is_collection:
        pictures["clip"] = [clips.names[number] for number, _ in kept]
    methods: dict[tuple[int, int], Sequence[Method]] = {}
    scores: list[list[Scores]] = []
    name = clips.splits[0].name
    with Progress(len(clips), f"evaluating {name}", "frame") as progress:
        for number, split in enumerate(clips.splits):
            size = split.manifest.lr_size
            if size not in methods:
                methods[size] = methods_of(split.manifest)  # it counts operations, which inference mode hides
                _warm_up(split, methods[size], device)
            own = {centre for clip, centre in kept if clip == number}
            with torch.inference_mode():
                scores.append(_measure_clip(split, methods[size], own, pictures, device, progress))
    # rows of all clips together, then of each one
    parts = list_parts(clips.splits[0].manifest)
    if not clips.is_collection:
        rows = [record.row(name, part, centres=clips.splits[0].centres) for part in parts for record in scores[0]]
    else:
        rows = [Scores.of_all(each).row(name, part) for part in parts for each in zip(*scores, strict=True)]
        rows += [record.row(name, part, clip, split.centres) for part in parts
                 for clip, split, own in zip(clips.names, clips.splits, scores, strict=True) for record in own]
    return rows, pictures


def _measure_clip(split: Split, methods: Sequence[Method], kept: set[int], pictures: Pictures, device: torch.device,
                  progress: Progress) -> list[Scores]:
    """Enlarge and measure a clip frame by frame; only the enlargement is timed. The `kept` frames go to `pictures`."""
    scores = [Scores(method, split.manifest) for method in methods]
    flow_of_hr = HrFlow()
    for before, centre in itertools.pairwise([None, *split.centres]):
        if centre - 1 != before:
            for record in scores:
                record.forget_frame()
        window = split.lr_frames(centre - REACH, centre + REACH + 1).transpose(0, 1).to(device)
        hr = split.hr_frame(centre).float().numpy()
        lr = window[:, REACH].float().cpu().numpy()
        shown = {"lr": lr, "hr": hr}
        for record in scores:
            started = time.perf_counter()
            sr = record.method.enlarge(window).cpu().numpy()
            record.seconds += time.perf_counter() - started
            sr = _fit_gain_and_offset(sr, hr, split.manifest.has_variables) if record.method.fits_hr else sr
            record.add(sr, hr, lr, flow_of_hr)
            shown[record.method.name] = sr
        if centre in kept:
            for name, picture in shown.items():
                pictures.setdefault(name, []).append(picture.astype(np.float32))
        progress.advance()
    return scores


def _warm_up(split: Split, methods: Sequence[Method], device: torch.device) -> None:
    """Enlarge a frame by each method, so that choosing kernels and taking memory is not timed later."""
    window = split.lr_frames(split.centres[0] - REACH, split.centres[0] + REACH + 1).transpose(0, 1).to(device)
    with torch.inference_mode():
        for method in methods:
            method.enlarge(window).cpu()


def measure_flow(network: Network, clips: Clips, device: torch.device) -> Flow:
    """Measure how well flows found on LR frames carry the HR neighbours onto the HR centre frame.

    Returns
    -------
    Flow
        ``learned``, ``dis`` (classical flow between bicubically enlarged frames) and ``zero`` (no motion): root mean
        square difference after warping, in the values of the data set, or in values 0..1 on the training split if it
        has several variables; ``frames`` and ``pairs`` that were measured.
    """
    enlarge = Enlarge("bicubic", clips.splits[0].manifest.scale).to(device)
    sums, pairs = dict.fromkeys(("learned", "dis", "zero"), 0.0), 0
    samples = clips.spread_evenly(FLOW_FRAMES)
    with torch.inference_mode():
        for number, centre in samples:
            split = clips.splits[number]
            # the learned flows, and grey frames for the classical one
            lr = split.window(centre).to(device)
            found = network.flows(lr[None])
            grey = [to_8bit(255 * enlarge(lr[None, :, position])[0].mean(0).cpu().numpy())
                    for position in range(lr.shape[1])]
            # carry each HR neighbour by each flow, and compare it with the centre frame
            here = _hr_values(split, centre).to(device)
            for position, flow in found.items():
                neighbour = _hr_values(split, centre + position - REACH).to(device)
                classical = torch.from_numpy(flow_between(grey[REACH], grey[position])).permute(2, 0, 1)[None]
                flows = {"learned": flow, "dis": classical.to(device), "zero": torch.zeros_like(flow)}
                for name, candidate in flows.items():
                    sums[name] += torch.nanmean((warp(neighbour, candidate) - here).double() ** 2).item()
                pairs += 1
    return Flow(**{name: math.sqrt(total / pairs) for name, total in sums.items()}, frames=len(samples), pairs=pairs)


def _hr_values(split: Split, number: int) -> torch.Tensor:
    """Return a HR frame, (1, C, H, W) as stored; several variables on their own ranges."""
    hr = split.hr_frame(number)
    return (split.normalise(hr) if split.manifest.has_variables else hr.float())[None]


def _fit_gain_and_offset(sr: np.ndarray, hr: np.ndarray, by_channel: bool = False) -> np.ndarray:
    """Return `sr` with the gain and offset, of all or of each channel, that bring it nearest to `hr`."""
    if by_channel:
        return np.stack([_fit_gain_and_offset(*pair) for pair in zip(sr, hr, strict=True)])
    known = ~np.isnan(hr)
    gain, offset = np.polyfit(sr[known].astype(np.float64), hr[known].astype(np.float64), 1) \
        if np.ptp(sr[known]) > 0 else (0.0, hr[known].mean())
    return (gain * sr + offset).astype(np.float32)
