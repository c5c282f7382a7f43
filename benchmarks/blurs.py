"""Compares networks over a range of blurs: PSNR on the test split of a data set against the blur of the input.

    python benchmarks/blurs.py --data data/diamond --runs runs/compact runs/compact_blurs --figure blurs.png
    python benchmarks/blurs.py --data data/diamond --runs runs/compact_noise --noise 2

Each HR frame is blurred and reduced anew for each blur, as preprocessing would, and gets the noise of a camera
(--noise). A network of one blur undoes that one; a network of a range (train.sigma, train.noise) gets the filters of
the true blur and noise, and those of what `upscale` would measure. Beside them are bicubic enlargement, and Wiener
deconvolution of it with the true and the measured blur, whose noise-to-signal power is tuned for each blur and that
noise on the validation split. docs/results.md has what was found.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from hpc_vsr.data.blurred import BlurredSplit  # noqa: E402
from hpc_vsr.data.clips import Clips  # noqa: E402
from hpc_vsr.data.manifest import Manifest, read_manifest  # noqa: E402
from hpc_vsr.data.noise import add_noise  # noqa: E402
from hpc_vsr.data.splits import REACH  # noqa: E402
from hpc_vsr.evaluation.baselines import tune_blurs  # noqa: E402
from hpc_vsr.media.blur import blur_to_undo, measure_blur  # noqa: E402
from hpc_vsr.media.noise import measure_noise  # noqa: E402
from hpc_vsr.metrics.image import PAPER_CROP, psnr  # noqa: E402
from hpc_vsr.models.blurs import Blurs  # noqa: E402
from hpc_vsr.models.enlarge import Enlarge  # noqa: E402
from hpc_vsr.upscale.upscaler import Upscaler, load  # noqa: E402
from hpc_vsr.upscale.windows import pick_few  # noqa: E402

Enlarged = Callable[[Tensor], Tensor]  # (C, 5, h, w) to (C, s h, s w), stored values
BELOW = 3.0  # dB below the worst bicubic; what is still lower, from a filter for another blur, is not drawn


class Condition(NamedTuple):
    """Blur of an input in HR pixels, and its noise in grey levels."""

    sigma: float
    noise: float


def measure_condition(windows: Sequence[Tensor], scale: int) -> Condition | None:
    """Return the blur and noise that an upscaling of these frames would take; None if it cannot measure them."""
    few = [windows[number][:, REACH].float().numpy() for number in pick_few(range(len(windows)))]
    blur, noise = measure_blur(frame.mean(0) for frame in few), measure_noise(frame[0] for frame in few)
    return None if blur is None else Condition(blur_to_undo(blur, scale), noise or 0.0)


def candidates(runs: Sequence[Upscaler], manifest: Manifest, tuned: Blurs, true: Condition, found: Condition | None
               ) -> dict[str, Enlarged]:
    """Return {name: function} of everything that is compared on inputs of this condition."""
    scale, low, high = manifest.scale, tuned.sigmas[0], tuned.sigmas[-1]

    def fixed(enlarge: Enlarge) -> Enlarged:
        return lambda window: enlarge(window[None, :, REACH].float())[0]

    def wiener(blur: float) -> Enlarged:
        blur = min(max(blur, low), high)
        return fixed(Enlarge("wiener", scale, blur, tuned.noise_of(blur)))
    found_all = {"bicubic": fixed(Enlarge("bicubic", scale)), "Wiener, blur known": wiener(true.sigma)}
    if found is not None:
        found_all["Wiener, blur measured"] = wiener(found.sigma)
    for run in runs:
        terms = run.trained.terms
        (first, last), most = terms.blur_range, terms.most_noise
        name = f"{run.name}, trained for {f'{first:g} to {last:g}' if first < last else f'{first:g}'}"
        if not terms.has_blurs:
            found_all[name] = run.enlarge
            continue
        name += f" and noise to {most:g}" if most else ""
        for text, condition in (("known", true), ("measured", found)):
            if condition is not None:
                sigma = min(max(condition.sigma, first), last) if first < last else None
                found_all[f"{name}, {text}"] = _at(run, sigma, min(condition.noise, most) if most else None)
    return found_all


def _at(run: Upscaler, sigma: float | None, noise: float | None) -> Enlarged:
    other = Upscaler(run.trained.at(sigma, noise), run.name, run.device, run.choice)
    return other.enlarge


def measure(enlarge: Enlarged, pairs: Sequence[tuple[Tensor, Tensor]], peak: float, is_8bit: bool) -> float:
    """Return the mean over frames of the PSNR in dB, without the outermost pixels; of 8 bits rounded as a video is."""
    found = []
    for window, hr in pairs:
        with torch.inference_mode():
            out = enlarge(window)
        out = out.clamp(0, peak).round() if is_8bit else out
        error = (out - hr.float())[..., PAPER_CROP:-PAPER_CROP, PAPER_CROP:-PAPER_CROP].double()
        found.append(psnr(torch.nanmean(error**2).item(), peak))
    return statistics.fmean(found)


def draw(sigmas: Sequence[float], rows: dict[str, list[float]], title: str, path: Path) -> None:
    """Draw PSNR against the blur."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for name, values in rows.items():
        style = "--" if "measured" in name else ":" if name == "bicubic" or name.startswith("Wiener") else "-"
        axes.plot(sigmas, values, style, marker="o", markersize=3, label=name)
    axes.set(xlabel="blur of the input: sigma in HR pixels", ylabel="PSNR in dB", title=title)
    axes.set_ylim(bottom=min(rows["bicubic"]) - BELOW)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of a data set")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="run folders of the networks")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4],
                        help="blurs in HR pixels (default: 0 to 4 in halves)")
    parser.add_argument("--noise", type=float, default=0.0,
                        help="noise of the LR frames in grey levels (default: none)")
    parser.add_argument("--frames", type=int, default=12, help="frames of the test split (default: 12)")
    parser.add_argument("--figure", type=Path, help="PNG file to draw")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    manifest, sigmas = read_manifest(arguments.data), sorted(arguments.sigmas)
    runs = [load(run, "cpu", "fp32") for run in arguments.runs]
    peak = 255.0 if manifest.is_grey else float(np.max(manifest.extent))
    if arguments.noise and not manifest.is_grey:
        parser.error("--noise is in grey levels, and this data set has values of a field")
    tuned = Blurs(sigmas, tune_blurs(manifest, sigmas, [arguments.noise]))
    clips = Clips(manifest, "test", kind=lambda *one: BlurredSplit(*one, sigmas=sigmas))
    places = [(clips.splits[clip], centre) for clip, centre in clips.spread_evenly(arguments.frames)]
    rows: dict[str, list[float]] = {}
    found_all = []
    for level, sigma in enumerate(sigmas):
        pairs = [(add_noise(split.lr_window(centre, level=level).transpose(0, 1), arguments.noise, [number]),
                  split.hr_frame(centre)) for number, (split, centre) in enumerate(places)]
        found = measure_condition([window for window, _ in pairs], manifest.scale) if manifest.is_grey else None
        found_all.append(found)
        for name, enlarge in candidates(runs, manifest, tuned, Condition(sigma, arguments.noise), found).items():
            rows.setdefault(name, []).append(measure(enlarge, pairs, peak, manifest.is_8bit))
    title = f"{manifest.folder.name}, {manifest.scale} times, {len(places)} frames of the test split"
    title += f", noise of {arguments.noise:g} grey levels" if arguments.noise else ""
    print(f"{title}\n\n| blur | {' | '.join(f'{sigma:g}' for sigma in sigmas)} |\n|---|{'---:|' * len(sigmas)}")
    if None not in found_all:
        print(f"| blur that is taken | {' | '.join(f'{found.sigma:.2f}' for found in found_all)} |")
        print(f"| measured noise | {' | '.join(f'{found.noise:.2f}' for found in found_all)} |")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |")
    if arguments.out:
        arguments.out.write_text(json.dumps({"title": title, "sigmas": sigmas, "measured": found_all, "psnr": rows}))
    if arguments.figure:
        draw(sigmas, rows, title, arguments.figure)


if __name__ == "__main__":
    main()
