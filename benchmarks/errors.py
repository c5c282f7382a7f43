"""Compares ways to predict the error of each pixel of an upscaling, on the test split of a data set.

    python -m hpc_vsr.calibrate --run runs/compact
    python benchmarks/errors.py --data data/diamond --run runs/compact --others runs/seed-1 runs/seed-2

- one error for all pixels;
- the spread of the self-ensemble, of the network on the 8 symmetries of a square;
- the spread of runs of the same network with other seeds (--others);
- the head of `hpc_vsr.calibrate`.

Each is scaled by one factor, so that it is right on the validation split in the mean. The figures: the negative
logarithm of the likelihood per pixel (lower is better); the rank correlation with the actual error; the share of
pixels within 1, 2 and 3 of the predicted error; and what is left of the squared error if the tenth of the pixels with
the largest predicted error is left out. docs/results.md has what was found.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from hpc_vsr.data.clips import Clips  # noqa: E402
from hpc_vsr.data.manifest import Manifest, read_manifest  # noqa: E402
from hpc_vsr.metrics.image import PAPER_CROP  # noqa: E402
from hpc_vsr.models.network import Network  # noqa: E402
from hpc_vsr.runs.error_head import load_error  # noqa: E402
from hpc_vsr.runs.folder import RunFolder  # noqa: E402
from hpc_vsr.runs.trained import load_trained  # noqa: E402

EVERY = 7  # pixels for the rank correlation
LEAST = 1e-5  # of the extent of the values, so that no likelihood is infinite
Predict = Callable[[Tensor], Tensor]  # (1, C, 5, h, w) to (1, C, s h, s w)


def symmetries(network: Network, window: Tensor) -> Tensor:
    """Return what a network makes of the 8 symmetries of a square, turned back, (8, C, s h, s w)."""
    made = []
    for turns in range(4):
        for mirrored in (False, True):
            turned = torch.rot90(window, turns, (-2, -1))
            turned = turned.flip(-1) if mirrored else turned
            out = network.upscale(turned.contiguous())
            out = out.flip(-1) if mirrored else out
            made.append(torch.rot90(out, -turns, (-2, -1))[0])
    return torch.stack(made)


def collect(network: Network, predict: Predict, clips: Clips, count: int) -> tuple[Tensor, Tensor]:
    """Return the errors and the predicted ones of all pixels of some frames, (N,) each."""
    errors, predicted = [], []
    for number, centre in clips.spread_evenly(count):
        split = clips.splits[number]
        window = split.window(centre)[None]
        error = network.upscale(window)[0].float() - split.normalise(split.hr_frame(centre))
        sigma = predict(window)[0].float().clamp(min=LEAST)
        cut = (..., slice(PAPER_CROP, -PAPER_CROP), slice(PAPER_CROP, -PAPER_CROP))
        known = ~torch.isnan(error[cut])
        errors.append(error[cut][known].double())
        predicted.append(sigma.expand_as(error)[cut][known].double())
    return torch.cat(errors), torch.cat(predicted)


def figures(error: Tensor, sigma: Tensor) -> list[str]:
    likelihood = (torch.log(sigma) + (error / sigma) ** 2 / 2).mean()
    rank = spearmanr(error[::EVERY].abs(), sigma[::EVERY]).statistic if sigma.min() < sigma.max() else float("nan")
    within = [f"{100 * (error.abs() <= times * sigma).double().mean():.1f}" for times in (1, 2, 3)]
    certain = sigma.argsort()[: len(sigma) * 9 // 10]
    return [f"{likelihood:.3f}", f"{rank:.3f}", *within, f"{(error[certain] ** 2).sum() / (error**2).sum():.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of a data set")
    parser.add_argument("--run", type=Path, required=True, help="run folder of a network that was calibrated")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="runs of the same network with other seeds")
    parser.add_argument("--frames", type=int, default=16, help="frames of each split (default: 16)")
    arguments = parser.parse_args()
    manifest: Manifest = read_manifest(arguments.data)
    if manifest.periodic:
        parser.error("the frames are enlarged as if they ended at their border; give a data set that is not periodic")
    run = RunFolder(arguments.run)
    trained = load_trained(run)
    network, head = trained.network, load_error(run, trained).network
    others = [network, *(load_trained(RunFolder(other)).network for other in arguments.others)]
    ways: dict[str, Predict] = {
        "one error for all": lambda window: torch.ones(1),
        "self-ensemble": lambda window: symmetries(network, window).std(0)[None],
        **({f"{len(others)} seeds": lambda window: torch.stack([one.upscale(window)[0] for one in others]).std(0)[None]}
           if arguments.others else {}),
        "head": head.upscale}
    print("| way | factor | -log likelihood | rank correlation | 1 (%) | 2 (%) | 3 (%) | left of 9/10 |\n"
          f"|---|{'---:|' * 7}")
    with torch.inference_mode():
        for name, predict in ways.items():
            error, sigma = collect(network, predict, Clips(manifest, "val"), arguments.frames)
            factor = ((error**2).mean() / (sigma**2).mean()).sqrt()
            error, sigma = collect(network, predict, Clips(manifest, "test"), arguments.frames)
            print(f"| {name} | {factor:.3g} | {' | '.join(figures(error, factor * sigma))} |", flush=True)


if __name__ == "__main__":
    main()
