"""Compares the networks' frames per second, upscaling and training, with torch's own convolutions and matrix products.

    python benchmarks/networks.py                                 Delta, 450x300 out, both
    python benchmarks/networks.py --model parallel5 --only upscale
    python benchmarks/networks.py --whole                         with the Wiener filter on its input and beside it
    python benchmarks/networks.py --precisions fp32 bf16          bf16 even if auto would not take it

  stock      the same network with torch's own Conv3d and Conv2d, eager, frames in torch's default layout; on a GPU in
             float32 as it stands, and rounded to TF32, which is torch's default
  ours       as hpc_vsr computes it
  matrices   products of 2048 x 2048 matrices with as many operations as the network
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402
from compare import Comparison, build_parser, publish, rate_of, take_turns  # noqa: E402
from gpu_kit.reference import stock  # noqa: E402

from hpc_vsr.models.build import build_model  # noqa: E402
from hpc_vsr.models.flops import count_flops  # noqa: E402
from hpc_vsr.models.network import Network  # noqa: E402
from hpc_vsr.models.precision import autocast, choose_precision  # noqa: E402
from hpc_vsr.models.settings import ModelSettings  # noqa: E402
from hpc_vsr.system.gpus import choose_device, own_device  # noqa: E402
from hpc_vsr.system.memory import keep_freed_memory, peak_memory  # noqa: E402
from hpc_vsr.training.objective import Objective  # noqa: E402

SIGMA, NOISE = 3.0, 1e-3
MATRIX = 2048
SECONDS = 2.0  # shortest time for which a candidate is repeated


def upscaling(network: Network, lr: torch.Tensor, precision: str, device: torch.device) -> Callable[[], None]:
    network.eval()

    def work() -> None:
        with torch.inference_mode(), autocast(device, precision):
            network.upscale(lr)
    return work


def training(network: Network, precision: str, device: torch.device) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Return a training step, a function of a batch (lr, hr)."""
    objective = Objective(network, 0.0)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-6)

    def step(lr: torch.Tensor, hr: torch.Tensor) -> None:
        with autocast(device, precision):
            loss = objective(lr, hr, "mse")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return step


def in_tf32(work: Callable) -> Callable:
    """Return `work` with torch's own default on a GPU, which rounds the factors of convolutions to 10 bits."""
    def rounded(*arguments) -> None:
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        try:
            work(*arguments)
        finally:
            torch.backends.cudnn.conv.fp32_precision = "ieee"
    return rounded


def product(flops: float, precision: str, device: torch.device) -> Callable[[], None]:
    """Return work with as many operations as `flops`, in products of matrices."""
    matrix = torch.randn(MATRIX, MATRIX, device=device, dtype=torch.float32 if precision == "fp32" else torch.bfloat16)
    times = max(1, round(flops / (2 * MATRIX**3)))

    def work() -> None:
        with torch.inference_mode():
            for _ in range(times):
                matrix @ matrix
    return work


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--model", default="delta", choices=["previous", "delta", "parallel5"])
    parser.add_argument("--size", default="450x300", help="WIDTHxHEIGHT of an upscaled frame (default: 450x300)")
    parser.add_argument("--patch", type=int, default=32, help="side of a training patch in LR pixels (default: 32)")
    parser.add_argument("--batch", type=int, default=4, help="patches of a training step (default: 4)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 uses all cores")
    parser.add_argument("--only", choices=["upscale", "train"])
    parser.add_argument("--whole", action="store_true", help="with the input and the residual path of jobs/delta.toml")
    parser.add_argument("--precisions", nargs="*", choices=["fp32", "bf16"],
                        help="(default: fp32, and bf16 if auto takes it)")
    parser.add_argument("--limit", choices=["fp32", "bf16"], help="precision of the matrices (default: the fastest)")
    arguments = parser.parse_args()
    device = own_device(choose_device(arguments.device))
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    whole = {} if arguments.whole else {"skip": "none", "input": "plain"}
    ours = build_model(ModelSettings(name=arguments.model, **whole), 1, 2, SIGMA, NOISE).to(device)
    networks = {"stock": stock(ours), "ours": ours}
    fastest = choose_precision("auto", ours, 1, device, arguments.patch).precision
    precisions = arguments.precisions or dict.fromkeys(("fp32", fastest))
    arguments.limit = arguments.limit or fastest
    width, height = (int(side) // 2 for side in arguments.size.split("x"))
    comparisons = []
    if arguments.only != "train":
        flops = count_flops(build_model(ModelSettings(name=arguments.model, **whole), 1, 2, SIGMA, NOISE), 1,
                            (height, width))
        lr = torch.rand(1, 1, 5, height, width, device=device)
        works = {f"{name}, {precision}": upscaling(network, lr, precision, device)
                 for name, network in networks.items() for precision in precisions}
        if device.type == "cuda":
            works["stock, TF32"] = in_tf32(works["stock, fp32"])
        comparisons.append(measure(
            {name: rate_of(work, 1, SECONDS, device) for name, work in works.items()},
            flops, 1, "frames/s", f"{arguments.model}: upscaling to {arguments.size}", arguments, device))
    if arguments.only != "upscale":
        side = arguments.patch + 2 * ours.reach
        lr = torch.rand(arguments.batch, 1, 5, side, side, device=device)
        hr = torch.rand(arguments.batch, 1, 2 * arguments.patch - 4, 2 * arguments.patch - 4, device=device)
        flops = 3 * arguments.batch * count_flops(
            build_model(ModelSettings(name=arguments.model, skip="none", input="plain"), 1, 2, SIGMA, NOISE), 1,
            (arguments.patch, arguments.patch))
        works = {f"{name}, {precision}": functools.partial(training(network, precision, device), lr, hr)
                 for name, network in networks.items() for precision in precisions}
        if device.type == "cuda":
            works["stock, TF32"] = in_tf32(works["stock, fp32"])
        comparisons.append(measure(
            {name: rate_of(work, arguments.batch, SECONDS, device) for name, work in works.items()},
            flops, arguments.batch, "samples/s",
            f"{arguments.model}: a training step of {arguments.batch} patches of {arguments.patch}x{arguments.patch}",
            arguments, device))
    publish("networks", comparisons, arguments)


def measure(candidates: dict, flops: float, amount: float, unit: str, title: str, arguments, device: torch.device
            ) -> Comparison:
    for candidate in candidates.values():
        candidate()  # choose kernels and take memory before the first turn
    times = flops / (2 * MATRIX**3)
    candidates["matrices"] = rate_of(product(flops, arguments.limit, device), amount * max(1, round(times)) / times,
                                  SECONDS, device)
    rates = take_turns(candidates, arguments.turns)
    peak = (f"{torch.cuda.max_memory_allocated() / 2**20:,.0f} MB of the GPU" if device.type == "cuda" else
            f"{peak_memory() / 2**20:,.0f} MB")
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    return Comparison(f"{title} ({flops / 1e9:,.1f} GFLOP a time; {device.type}{threads}; {peak} at most)", unit, rates,
                      limit="matrices")


if __name__ == "__main__":
    main()
