"""Measures the cost of training on several ranks: steps of one process, of independent processes, and of DDP.

    python benchmarks/ranks.py                    2 processes of this machine, gloo on a CPU, NCCL on GPUs
    python benchmarks/ranks.py --ranks 4

Every rank has its own samples, so without any cost each line would show 1.00. Cores share memory and caches; the line
of the independent processes shows how much that costs.

  alone                 one process, one core (one GPU)
  not talking           N processes side by side, each by itself
  together              DistributedDataParallel: gradients are averaged in every step
  together, every 4th   gradients are averaged in every fourth step (train.micro_batches = 4)
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402
from compare import Comparison, build_parser, on_cores, publish, take_turns  # noqa: E402

MICRO_BATCHES = 4


def rank(arguments) -> None:
    """Run as one process: print the samples per second of each way that this number of ranks has."""
    from hpc_vsr.system.memory import keep_freed_memory
    from hpc_vsr.system.ranks import join_ranks

    keep_freed_memory()
    torch.set_num_threads(1)
    with join_ranks("auto") as ranks:
        rates = measure(ranks, arguments)
        if ranks.is_main:
            print(json.dumps(rates), flush=True)


def measure(ranks, arguments) -> tuple[str, dict[str, float]]:
    """Return the precision, and {way: samples per second}."""
    from torch.nn.parallel import DistributedDataParallel

    from hpc_vsr.models.build import build_model
    from hpc_vsr.models.precision import autocast, choose_precision
    from hpc_vsr.models.settings import ModelSettings
    from hpc_vsr.training.objective import Objective

    torch.manual_seed(0)
    network = build_model(ModelSettings(name=arguments.model, skip="none", input="plain"), 1, 2, 3.0, 1e-3)
    objective = Objective(network.to(ranks.device), 0.0)
    precision = ranks.on_main(lambda: choose_precision("auto", network, 1, ranks.device, arguments.patch).precision)
    together_with_others = ranks.world_size > 1
    together = objective if not together_with_others else DistributedDataParallel(
        objective, broadcast_buffers=False, gradient_as_bucket_view=True)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-6)
    side = arguments.patch
    lr = torch.rand(arguments.batch, 1, 5, side, side, device=ranks.device)
    hr = torch.rand(arguments.batch, 1, 2 * side - 4, 2 * side - 4, device=ranks.device)

    def step(module: Callable, talks: bool) -> None:
        with contextlib.nullcontext() if talks or not together_with_others else together.no_sync():
            with autocast(ranks.device, precision):
                loss = module(lr, hr, "mse")
            loss.backward()
        if talks:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def wait_for_all() -> None:
        if ranks.device.type == "cuda":  # the barrier is gloo's, which does not wait for kernels
            torch.cuda.synchronize()
        ranks.barrier()

    def rate(module: Callable, every: int = 1) -> float:
        for number in range(MICRO_BATCHES):
            step(module, number % every == every - 1)
        wait_for_all()
        started = time.perf_counter()
        for number in range(arguments.steps):
            step(module, number % every == every - 1)
        wait_for_all()
        return arguments.batch * arguments.steps / (time.perf_counter() - started)

    if not together_with_others:
        return precision, {"alone": rate(objective)}
    return precision, {"not talking": rate(objective), "together": rate(together),
            f"together, every {MICRO_BATCHES}th": rate(together, MICRO_BATCHES)}


def run_ranks(count: int) -> tuple[str, dict[str, float]]:
    """Run `count` processes of this script, and return what `measure` gives."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cores = sorted(os.sched_getaffinity(0))
    processes = []
    # not pinned on a GPU, where a rank also has the threads of CUDA, gloo and NCCL
    pinned = not torch.cuda.is_available()
    for number in range(count):
        environment = {**os.environ, "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count),
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        own = [cores[number % len(cores)]] if pinned else cores
        with on_cores(own):
            processes.append(subprocess.Popen([sys.executable, __file__, "--child", *sys.argv[1:]], env=environment,
                                              stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes), outputs
    return json.loads(outputs[0])


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--ranks", type=int, default=2, help="number of ranks (default: 2)")
    parser.add_argument("--model", default="delta", choices=["previous", "delta", "parallel5"])
    parser.add_argument("--patch", type=int, default=32, help="side of a training patch in LR pixels (default: 32)")
    parser.add_argument("--batch", type=int, default=4, help="patches of a rank in a step (default: 4)")
    parser.add_argument("--steps", type=int, default=16, help="steps of each candidate in a turn (default: 16)")
    parser.add_argument("--child", action="store_true", help="one of the processes that are compared")
    arguments = parser.parse_args()
    if arguments.child:
        rank(arguments)
        return
    found: dict[str, float] = {}
    precisions: set[str] = set()

    def alone() -> float:
        for count in (1, arguments.ranks):
            precision, rates = run_ranks(count)
            precisions.add(precision)
            found.update(rates)
        return found["alone"]

    ways = ("not talking", "together", f"together, every {MICRO_BATCHES}th")
    rates = take_turns({"alone": alone, **{way: lambda way=way: found[way] for way in ways}}, arguments.turns)
    cores = len(os.sched_getaffinity(0))
    notes = {way: f"{arguments.ranks} ranks share {cores} cores" for way in ways} if arguments.ranks > cores else {}
    what = (f"{arguments.model}: a rank's training step of {arguments.batch} patches of {arguments.patch}x"
            f"{arguments.patch} in {' and '.join(sorted(precisions))}, alone and with {arguments.ranks} ranks")
    publish("ranks", [Comparison(what, "samples/s of a rank", rates, notes=notes)], arguments)


if __name__ == "__main__":
    main()
