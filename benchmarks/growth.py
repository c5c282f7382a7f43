"""Measures how the cost grows: of upscaling with the size of a frame, of preprocessing with the length of a video.

    python benchmarks/growth.py
    python benchmarks/growth.py --sizes 450x300 1920x1080 3840x2160 --lengths 500 1000 2000 4000

If the rate stays the same down a column, the cost grows in proportion. Frames whose LR side is above 384 pixels are
upscaled in tiles; "whole" computes the largest size at once, for comparison.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402
from clips import make_clip  # noqa: E402
from compare import Comparison, build_parser, publish, rate_of, take_turns  # noqa: E402

from hpc_vsr.models.build import build_model  # noqa: E402
from hpc_vsr.models.network import Network  # noqa: E402
from hpc_vsr.models.precision import autocast, choose_precision  # noqa: E402
from hpc_vsr.models.settings import ModelSettings  # noqa: E402
from hpc_vsr.system.gpus import choose_device, own_device  # noqa: E402
from hpc_vsr.system.memory import keep_freed_memory  # noqa: E402
from preprocess import run_child  # noqa: E402


def upscaler(network: Network, size: tuple[int, int], device: torch.device, precision: str, **tile: int):
    """Return a candidate that upscales to `size` (width, height) once; in megapixels per second."""
    def work() -> None:
        lr = torch.rand(1, 1, 5, size[1] // 2, size[0] // 2, device=device)
        with torch.inference_mode(), autocast(device, precision):
            network.upscale(lr, **tile)
    return rate_of(work, size[0] * size[1] / 1e6, device=device)


def size_of(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--sizes", nargs="*", default=["450x300", "900x600", "1920x1080", "3840x2160"],
                        help="WIDTHxHEIGHT of upscaled frames")
    parser.add_argument("--lengths", type=int, nargs="*", default=[500, 1000, 2000, 4000], help="frames of a video")
    parser.add_argument("--model", default="delta", choices=["previous", "delta", "parallel5"])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--whole", action="store_true", help="compute the largest size also without tiles")
    arguments = parser.parse_args()
    device = own_device(choose_device(arguments.device))
    keep_freed_memory()
    comparisons = []
    if arguments.sizes:
        torch.manual_seed(0)
        network = build_model(ModelSettings(name=arguments.model), 1, 2, 3.0, 1e-3).to(device).eval()
        precision = choose_precision("auto", network, 1, device).precision
        candidates = {size: upscaler(network, size_of(size), device, precision) for size in arguments.sizes}
        if arguments.whole:
            largest = arguments.sizes[-1]
            candidates[f"{largest}, whole"] = upscaler(network, size_of(largest), device, precision, tile=0)
        candidates[arguments.sizes[0]]()
        comparisons.append(Comparison(f"{arguments.model}: upscaling in {precision} on {device.type}, by size of the "
                                      "result", "Mpixel/s", take_turns(candidates, arguments.turns)))
    if arguments.lengths:
        scratch = Path(tempfile.gettempdir()) / "hpc-vsr-benchmarks"
        scratch.mkdir(exist_ok=True)
        core = sorted(os.sched_getaffinity(0))[:1]

        def preprocess(length: int) -> float:
            return length / run_child("ours", make_clip(scratch, (450, 300), length), 1, core, scratch)[0]

        comparisons.append(Comparison(
            "Preprocessing 450x300 on one rank and core, by length of the video", "frames/s",
            take_turns({f"{length} frames": functools.partial(preprocess, length) for length in arguments.lengths},
                       arguments.turns)))
    publish("growth", comparisons, arguments)


if __name__ == "__main__":
    main()
