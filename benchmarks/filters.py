"""Compares the ways to apply Wiener's filter to frames on a CPU: by correlation and by way of the frequencies.

    python benchmarks/filters.py

The first is one convolution in blocks (`correlate`), the second an FFT of the frame. `Enlarge` takes the second for
long filters. The title has the largest difference of each from the same filter in float64, for values 0..1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from compare import Comparison, build_parser, publish, rate_of, take_turns  # noqa: E402

from hpc_vsr.models import enlarge  # noqa: E402
from hpc_vsr.models.enlarge import Enlarge  # noqa: E402

NOISE = 1e-3
ALWAYS, NEVER = 1, 10**9  # side of a filter from which it is applied by way of the frequencies
SECONDS = 1.0


def applied(filters: Enlarge, frames: Tensor, least_for_fft: int) -> Callable[[], Tensor]:
    """Return work that enlarges frames; it takes the frequencies for filters from that side on."""
    def work() -> Tensor:
        enlarge.LEAST_FOR_FFT = least_for_fft
        with torch.inference_mode():
            return filters.inner(frames)
    return work


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["225x150", "960x540", "40x40"],
                        help="WIDTHxHEIGHT of LR frames (default: %(default)s)")
    parser.add_argument("--sigmas", nargs="+", type=float, default=[0.5, 1.0, 3.0], help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default: 1)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    comparisons = []
    for sigma in arguments.sigmas:
        filters = Enlarge("wiener", 2, sigma, NOISE)
        side = filters.kernels.shape[-1]
        for size in arguments.sizes:
            width, height = map(int, size.split("x"))
            frames = torch.rand(1, 1, height + side - 1, width + side - 1)
            works = {"correlation": applied(filters, frames, NEVER), "frequencies": applied(filters, frames, ALWAYS)}
            exact = F.pixel_shuffle(F.conv2d(frames.double(), filters.kernels.double()), 2)
            errors = ", ".join(f"{float((work() - exact).abs().max()):.1e}" for work in works.values())
            rates = take_turns({name: rate_of(work, 1, SECONDS) for name, work in works.items()}, arguments.turns)
            comparisons.append(Comparison(f"sigma {sigma:g}, filter of {side}x{side}, LR {size}, error {errors}",
                                          "frames/s", rates))
    publish("filters", comparisons, arguments)


if __name__ == "__main__":
    main()
