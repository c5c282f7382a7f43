"""Checks that `precision = "auto"` chooses the faster one: times whole networks in fp32 and in bf16.

    python benchmarks/precision.py                            this processor
    python benchmarks/precision.py --limits none avx512 avx2  like older processors, as far as this one has more

auto times one convolution for a fraction of a second. Here each network upscales a window of 40x40 LR pixels and makes
training steps on patches. The note shows what auto chose and what it measured.

  none     everything that this processor has
  avx512   AVX-512 without bf16 (Skylake, Cascade Lake)
  avx2     no AVX-512 (Zen 2, Zen 3), as in `make test PORTABLE=1`
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from compare import Comparison, build_parser, publish  # noqa: E402

PORTABLE = dict(line.split("=", 1) for line in (HERE.parent / "tests" / "portable.env").read_text().splitlines()
                if line and not line.startswith("#"))
LIMITS = {"none": {}, "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "ATEN_CPU_CAPABILITY": "avx512"},
          "avx2": PORTABLE}
SIGMA, NOISE = 3.0, 1e-3


def child(arguments) -> None:
    """Print the figures of one kind of processor: [{title, rates, note}, ...]."""
    import torch
    from compare import rate_of, take_turns
    from networks import training, upscaling

    from hpc_vsr.models.build import build_model
    from hpc_vsr.models.precision import choose_precision
    from hpc_vsr.models.settings import ModelSettings
    from hpc_vsr.system.memory import keep_freed_memory

    keep_freed_memory()
    cpu, found = torch.device("cpu"), []
    for model in arguments.models:
        scale = 4 if model == "flow4x" else 2
        settings = ModelSettings(name=model, skip="wiener", input="plain" if model == "flow4x" else "deconvolved")
        for work in ("upscaling", "training"):
            torch.manual_seed(0)
            network = build_model(settings, 1, scale, SIGMA, NOISE)
            choice = choose_precision("auto", network, 1, cpu, arguments.patch if work == "training" else 0)
            side = arguments.patch + 2 * network.reach
            batch = torch.rand(arguments.batch, 1, 5, side, side)
            hr = torch.rand(arguments.batch, 1, *[scale * (arguments.patch - 2)] * 2)
            window = torch.rand(1, 1, 5, arguments.window, arguments.window)

            def candidate(precision: str, network=network, batch=batch, hr=hr, window=window, work=work):
                if work == "upscaling":
                    return rate_of(upscaling(network, window, precision, cpu), 1, arguments.seconds)
                step = training(network, precision, cpu)
                return rate_of(lambda: step(batch, hr), arguments.batch, arguments.seconds)
            candidates = {precision: candidate(precision) for precision in ("fp32", "bf16")}
            for once in candidates.values():
                once()
            found.append({"title": f"{model}, {work}", "unit": "windows/s" if work == "upscaling" else "samples/s",
                          "rates": take_turns(candidates, arguments.turns),
                          "notes": {choice.precision: f"auto: {choice.reason}"}})
    print(json.dumps(found))


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--limits", nargs="*", default=["none"], choices=list(LIMITS), help="(default: none)")
    parser.add_argument("--models", nargs="*", default=["previous", "delta", "parallel5", "flow4x"])
    parser.add_argument("--window", type=int, default=40, help="side of an upscaled window, LR pixels (default: 40)")
    parser.add_argument("--patch", type=int, default=32, help="side of a training patch in LR pixels (default: 32)")
    parser.add_argument("--batch", type=int, default=4, help="patches of a training step (default: 4)")
    parser.add_argument("--seconds", type=float, default=1.0, help="time to repeat a candidate (default: 1)")
    parser.add_argument("--child", action="store_true", help="one of the processes that measure")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    comparisons = []
    for limit in arguments.limits:
        done = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--child"], env={**os.environ, **LIMITS[limit]},
                              stdout=subprocess.PIPE, text=True, check=True)
        for entry in json.loads(done.stdout):
            comparisons.append(Comparison(f"{entry.pop('title')}, limits: {limit}", **entry))
    publish("precision", comparisons, arguments)


if __name__ == "__main__":
    main()
