"""Compares bf16 with fp32 on a CPU: how fast a network's convolutions are, and which are wrong in bf16."""

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
WORK = 4e7  # floating-point operations of one timed convolution: about 1 ms in fp32 on one core
SECONDS = 0.2  # how long the two precisions take turns
MIN_TURNS, HOPELESS = 3, 8  # take at least 3 turns, then give up once bf16 is 8 times slower
PATIENCE = 1.0  # seconds after which even the first 3 turns are cut short, to no less than one
CLEAR = 2.0  # the main convolution decides if one precision is this many times slower
TOLERANCE = 0.02  # largest relative RMS error of a layer in bf16, whose 8 bits explain about 0.003
MARGIN = 1.05  # bf16 must be faster by this factor, because fp32 is more exact
SIDE = 16  # side in LR pixels of the frames with which the layers are found


@dataclass(frozen=True)
class Timing:
    """Seconds that convolutions of a network take on one thread of this CPU; for training, with their gradients."""

    fp32: float
    bf16: float
    what: str = "a convolution of the network takes"

    @property
    def fastest(self) -> str:
        return "bf16" if self.bf16 * MARGIN < self.fp32 else "fp32"

    def __str__(self) -> str:
        return f"{self.what} {1e3 * self.fp32:.3g} ms in fp32 and {1e3 * self.bf16:.3g} ms in bf16 on this CPU"


def measure_convolutions(network: Network, channels: int, training: bool = False) -> Timing:
    """Time the network's convolutions in fp32 and in bf16 on this CPU; for training, with their gradients.

    The convolution with the most operations is timed first. If neither precision is twice as slow there, all
    convolutions are timed together, because small layers may then decide.

    This takes about a second at most. It runs on one thread, because threads wait for each other on a busy machine, and
    counts the shortest time of each convolution. The processor's flags would not be enough: some processors emulate
    part of bf16, and whether a library uses what the processor has depends on the versions of both.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        layers = _list_layers(network, channels, SIDE)
        main = max(layers, key=lambda layer: layer.operations)
        fp32, bf16 = _time_layer(main.module, _enlarged_batch(main), training)
        if max(fp32, bf16) >= CLEAR * min(fp32, bf16):
            return Timing(fp32, bf16, "a convolution of the network takes")
        if 2 * main.operations < WORK:  # the frame is so small that the calls would be timed, not the arithmetic
            layers = _list_layers(network, channels, round(SIDE * (WORK / (2 * main.operations)) ** 0.5))
        times = [_time_layer(layer.module, layer.seen, training, seconds=0) for layer in layers]
        return Timing(*(sum(layer.calls * pair[index] for layer, pair in zip(layers, times, strict=True))
                        for index in (0, 1)), "the convolutions of the network take")
    finally:
        torch.set_num_threads(threads)


def find_wrong_layers(network: Network, channels: int, patch_size: int = 0) -> list[str]:
    """Return the names of the network's convolutions that this CPU computes wrongly in bf16.

    A convolution is wrong if its result differs from fp32 by more than rounding explains. Each one is tested on what it
    sees of random frames of two sizes, because some kernels are wrong only at certain sizes. For training, give
    `patch_size` in LR pixels: frames of that size are used, and gradients are compared too.
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
    """Check that a layer gives nearly the same in bf16 as in fp32; for training, also its gradients."""
    def results(precision: str) -> list[Tensor]:
        leaf, weight = seen.detach().requires_grad_(), module.weight.detach().requires_grad_()
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            out = functional_call(module, {"weight": weight}, (leaf,))
        if not training:
            return [out.detach().float()]
        upstream = torch.rand(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
        return [out.detach().float(), *(one.float() for one in torch.autograd.grad(out, [leaf, weight], upstream))]

    pairs = zip(results("bf16"), results("fp32"), strict=True)
    return all((found - wanted).norm() <= TOLERANCE * wanted.norm() for found, wanted in pairs)  # False for NaN


@dataclass
class _Layer:
    """A convolution of a network: its input at the first call, and its calls and operations for one frame."""

    module: nn.Module
    seen: Tensor
    calls: int = 0
    operations: int = 0


def _list_layers(network: Network, channels: int, side: int) -> list[_Layer]:
    """Return the convolutions of a network, found by upscaling random frames of `side` LR pixels in fp32."""
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
    """Return an input of the layer's kind that is large enough to be timed."""
    shape = layer.seen.shape
    side = round((WORK / (2 * layer.module.weight.numel() * math.prod(shape[2:-2]))) ** 0.5)
    return torch.rand(1, *shape[1:-2], side, side, generator=torch.Generator().manual_seed(0))


def _time_layer(module: nn.Module, batch: Tensor, training: bool, seconds: float = SECONDS) -> tuple[float, float]:
    """Return the shortest seconds in (fp32, bf16); for training, of two samples with their gradients."""
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
    """Return the shortest time of each within `seconds`; the first calls build kernels and are not counted."""
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
