"""One 3D layer in every way that computes it: its rate beside its error."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from gpu_kit.kit import Item, Kit, rate, record
from gpu_kit.speed import DTYPES
from hpc_vsr.models.blocks import Conv3d
from hpc_vsr.models.precision import autocast

# The largest error that rounding explains, several times over, relative in the root mean square.
LAYER_ERROR = {"fp32": 1e-5, "bf16": 1e-2, "fp16": 3e-3}
LAYERS = ((12, 12), (24, 24), (32, 32))


def check_layers(kit: Kit) -> Iterator[dict]:
    """Measure one 3D layer in every way that computes it: rate, and error against float64 on the CPU."""
    height, width = kit.sizes.lr
    for channels, features in LAYERS:
        layer = Conv3d(channels, features, 3, padding=1).requires_grad_(False)
        image = torch.rand(1, channels, 5, height, width, generator=torch.Generator().manual_seed(2))
        with torch.inference_mode():
            wanted = F.conv3d(image.double(), layer.weight.double(), layer.bias.double(), padding=1)
        flops = 2 * layer.weight.numel() * 5 * height * width
        layer, image = layer.to(kit.device), image.to(kit.device)
        for precision in kit.precisions:
            yield from _measure_ways(kit, layer, image, wanted, precision, flops)


def _measure_ways(kit: Kit, layer: Conv3d, image: torch.Tensor, wanted: torch.Tensor, precision: str, flops: int
                  ) -> Iterator[dict]:
    dtype = DTYPES[precision]
    x, weight, bias = image.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype)
    last = x.contiguous(memory_format=torch.channels_last_3d)
    weight_last = weight.contiguous(memory_format=torch.channels_last_3d)
    folded = torch.rand(5, 3 * layer.in_channels, *image.shape[-2:], device=kit.device).to(dtype)
    folded = folded.contiguous(memory_format=torch.channels_last)
    flat = weight.transpose(1, 2).reshape(layer.out_channels, -1, 3, 3).contiguous(memory_format=torch.channels_last)
    ways: dict[str, tuple[Callable, bool]] = {
        "conv3d": (lambda: F.conv3d(x, weight, bias, padding=1), True),
        "conv3d, channels last": (lambda: F.conv3d(last, weight_last, bias, padding=1), True),
        "folded to 2D (ours)": (lambda: _folded(layer, image, precision), True),
        f"its 2D part, {3 * layer.in_channels} to {layer.out_channels} channels":
            (lambda: F.conv2d(folded, flat, bias, padding=1), False),
    }
    if kit.on_gpu and precision != "fp32":
        ways["cudnn_convolution_relu, channels last"] = (lambda: torch.cudnn_convolution_relu(
            last, weight_last, bias, (1, 1, 1), (1, 1, 1), (1, 1, 1), 1), None)
    for way, (work, comparable) in ways.items():
        what = f"{layer.in_channels} to {layer.out_channels} channels, {precision}: {way}"
        with torch.inference_mode():
            try:
                found = work()
            except torch.AcceleratorError:  # this process can compute nothing more
                raise
            except RuntimeError as error:
                yield record(what, None, refused=str(error).splitlines()[0][:120])
                continue
            ok, figures = None, {}
            if comparable is not False:
                right = wanted.relu() if comparable is None else wanted
                error = ((found.double().cpu() - right).norm() / right.norm()).item()
                ok, figures = error <= LAYER_ERROR[precision], {"relative_error": float(f"{error:.1e}")}
            if ok is not False:
                figures["TFLOP_per_s"] = round(flops * rate(kit, work) / 1e12, 3)
        # torch's own ways may be wrong here, which is a finding of this kit and no fault of the networks
        yield record(what, ok if "ours" in way else None, **figures, **({} if ok is not False else {"wrong": True}))


def _folded(layer: Conv3d, image: torch.Tensor, precision: str) -> torch.Tensor:
    with autocast(image.device, precision):
        return layer._folded(image)


LAYERS_ITEM = Item("ways of a layer", check_layers, estimate=20, limit=60)
