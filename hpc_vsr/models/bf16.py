"""bf16 on a CPU: how fast a network's convolutions are in it, beside fp32, and which of them are wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hpc_vsr.models.network import Network

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
WORK = 4e7  # floating-point operations of one measured convolution: about a millisecond in fp32 on a core
SECONDS = 0.2  # for which the two precisions take turns
MIN_TURNS, HOPELESS = 3, 8  # after so many turns a precision that is so many times slower is given up,
PATIENCE = 1.0              # and after so many seconds after one turn
CLEAR = 2.0  # ratio of the times of the main convolution that settles it
TOLERANCE = 0.02  # of a layer in bf16, whose 8 bits give about 0.003, relative in the root mean square
MARGIN = 1.05  # bf16 must be faster by this factor, since fp32 is the more exact
SIDE = 16  # LR pixels of the frames on which the network is looked through


@dataclass(frozen=True)
class Timing:
    """What convolutions of a network take on a thread of this CPU, seconds; for training with their gradients."""

    fp32: float
    bf16: float
    what: str = "a convolution of the network takes"

    @property
    def fastest(self) -> str:
        return "bf16" if self.bf16 * MARGIN < self.fp32 else "fp32"

    def __str__(self) -> str:
        return f"{self.what} {1e3 * self.fp32:.3g} ms in fp32 and {1e3 * self.bf16:.3g} ms in bf16 on this CPU"


def measure_convolutions(network: Network, channels: int, training: bool = False) -> Timing:
    """Time the network's convolutions in fp32 and in bf16 on this CPU, for training with their gradients.

    First the one with most operations; if neither precision takes twice as long there, all of them together, since
    small layers may then decide. Takes about a second at most, on one thread, for threads wait for each other on a busy
    machine, and counts the shortest time of each. A processor's flags do not tell: some emulate bf16 in part, and
    whether a library uses what the processor has depends on both their versions.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        layers = _list_layers(network, channels, SIDE)
        main = max(layers, key=lambda layer: layer.operations)
        fp32, bf16 = _time_layer(main.module, _enlarged_batch(main), training)
        if max(fp32, bf16) >= CLEAR * min(fp32, bf16):
            return Timing(fp32, bf16, "a convolution of the network takes")
        times = [_time_layer(layer.module, layer.seen, training, seconds=0) for layer in layers]
        return Timing(*(sum(layer.calls * pair[index] for layer, pair in zip(layers, times, strict=True))
                        for index in (0, 1)), "the convolutions of the network take")
    finally:
        torch.set_num_threads(threads)


def find_wrong_layers(network: Network, channels: int, patch_size: int = 0) -> list[str]:
    """Names of the network's convolutions whose result in bf16 is off by more than its rounding explains, on this CPU.

    Each is compared with itself in fp32 on what it sees of random frames of two sizes; for a training on patches of
    `patch_size` LR pixels, with its gradients on frames of that size. Kernels that are wrong only at some sizes exist.
    """
    names = {module: name for name, module in network.named_modules() if isinstance(module, CONVOLUTIONS)}
    wrong = []
    for side in [patch_size] if patch_size else [SIDE, SIDE + 1]:
        for layer in _list_layers(network, channels, side):
            name = names[layer.module]
            if name not in wrong and not _is_right(layer.module, layer.seen, training=patch_size > 0):
                wrong.append(name)
    return wrong


def _is_right(module: nn.Module, seen: Tensor, training: bool) -> bool:
    def results(precision: str) -> list[Tensor]:
        leaf, weight = seen.detach().requires_grad_(), module.weight.detach().requires_grad_()
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            out = functional_call(module, {"weight": weight}, (leaf,))
        if not training:
            return [out.detach().float()]
        upstream = torch.rand(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
        return [out.detach().float(), *(one.float() for one in torch.autograd.grad(out, [leaf, weight], upstream))]

    pairs = zip(results("bf16"), results("fp32"), strict=True)
    return all((found - wanted).norm() <= TOLERANCE * wanted.norm() for found, wanted in pairs)  # NaN is not


@dataclass
class _Layer:
    """A convolution of a network, what it sees at its first call, and its calls and operations for a frame."""

    module: nn.Module
    seen: Tensor
    calls: int = 0
    operations: int = 0


def _list_layers(network: Network, channels: int, side: int) -> list[_Layer]:
    """The convolutions of a network, found by enlarging random frames of `side` LR pixels in fp32."""
    layers: dict[nn.Module, _Layer] = {}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        layer = layers.setdefault(module, _Layer(module, inputs[0].clone()))
        layer.calls += 1
        layer.operations += out.numel() * module.weight.numel() // out.shape[1]

    handles = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, CONVOLUTIONS)]
    whole = side + 2 * network.reach
    try:
        with torch.no_grad():
            network(torch.rand(1, channels, 5, whole, whole, generator=torch.Generator().manual_seed(0)))
    finally:
        for handle in handles:
            handle.remove()
    return list(layers.values())


def _enlarged_batch(layer: _Layer) -> Tensor:
    """An input of the layer's kind that is large enough to be timed."""
    shape = layer.seen.shape
    side = round((WORK / (2 * layer.module.weight.numel() * math.prod(shape[2:-2]))) ** 0.5)
    return torch.rand(1, *shape[1:-2], side, side, generator=torch.Generator().manual_seed(0))


def _time_layer(module: nn.Module, batch: Tensor, training: bool, seconds: float = SECONDS) -> tuple[float, float]:
    """Seconds in fp32 and in bf16, each the shortest; for training of two samples, with their gradients."""
    if training:
        batch = torch.cat([batch, batch])
    weight = module.weight.detach().requires_grad_(training)
    leaf = batch.detach().requires_grad_(training)

    def work(precision: str) -> Callable[[], None]:
        def compute() -> None:
            with torch.set_grad_enabled(training):
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                    out = functional_call(module, {"weight": weight}, (leaf,))
                if training:
                    torch.autograd.grad(out.float().square().sum(), [leaf, weight])
        return compute

    return _take_turns(work("fp32"), work("bf16"), seconds)


def _take_turns(one: Callable[[], None], other: Callable[[], None], seconds: float) -> tuple[float, float]:
    """The shortest time of each in so many seconds; the first call of each makes its kernels and does not count."""
    one(), other()
    best = other_best = math.inf
    turns, started = 0, time.perf_counter()
    while (turns == 0 or (turns < MIN_TURNS and time.perf_counter() < started + PATIENCE)
           or (time.perf_counter() < started + seconds and other_best < HOPELESS * best)):
        best, other_best = min(best, _seconds(one)), min(other_best, _seconds(other))
        turns += 1
    return best, other_best


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
