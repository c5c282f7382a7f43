"""GPUs as torch sees them, and whether the networks' convolutions are right and fast in every precision."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from hpc_vsr.distributed import choose_device
from hpc_vsr.doctor.findings import Finding
from hpc_vsr.models import ModelSettings, build_model
from hpc_vsr.models.blocks import Conv3d
from hpc_vsr.precision import autocast, choose_precision

CHANNELS, DEPTH, SIDE = 20, 5, 64  # of a 3D layer, somewhat wider than Delta's
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 3e-3}  # of the largest output; bf16 has 8 bits, fp16 11
SECONDS = 0.3


def check_gpus() -> Iterator[Finding]:
    built = f"torch {torch.__version__}"
    if not torch.cuda.is_available():
        reason = "was built without CUDA" if torch.version.cuda is None else "sees no GPU"
        given = os.environ.get("SLURM_GPUS_ON_NODE") or os.environ.get("CUDA_VISIBLE_DEVICES")
        yield Finding("GPU", "torch", "broken" if given else "warning", f"{built} {reason}: training runs on the CPU",
                      "install a torch with CUDA; the driver is checked with nvidia-smi" if given else
                      "on a GPU node this must say ok")
        return
    count = torch.cuda.device_count()
    names = ", ".join(f"{torch.cuda.get_device_name(index)} "
                      f"({torch.cuda.get_device_properties(index).total_memory / 2**30:.0f} GiB)"
                      for index in range(count))
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    yield Finding("GPU", "torch", "ok", f"{built}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, "
                  f"NCCL {nccl}")
    yield Finding("GPU", "visible", "ok", names)
    given = os.environ.get("SLURM_GPUS_ON_NODE", "")
    if given.isdecimal() and int(given) != count:
        yield Finding("GPU", "binding", "warning", f"SLURM gave {given}, this process sees {count}",
                      "start ranks with srun --gpu-bind=none: one visible GPU a rank loses NVLink")
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        yield Finding("GPU", "bf16", "warning", "this GPU has no bf16",
                      "leave train.precision at auto, which takes fp16")


def check_convolutions() -> Iterator[Finding]:
    """The 3D convolution of the networks, forward and backward, against torch's own in float64."""
    device = choose_device("auto")
    torch.manual_seed(0)
    conv = Conv3d(CHANNELS, CHANNELS, 3, padding=1)
    image = torch.randn(1, CHANNELS, DEPTH, SIDE, SIDE)
    wanted = _reference(conv, image)
    conv, image = conv.to(device), image.to(device)
    for precision, tolerance in TOLERANCE.items():
        found, rate = _measure(conv, image, precision, device)
        error = max(((one.double().cpu() - other).abs().max() / other.abs().max()).item()
                    for one, other in zip(found, wanted, strict=True))
        right = error < tolerance  # NaN is not
        yield Finding("arithmetic", precision, "ok" if right else "broken",
                      f"{device.type}: error {error:.1e} of {tolerance:.0e} allowed, {rate:,.0f} GFLOP/s",
                      "" if right else f"do not train in {precision} here; another version of torch brings another "
                      "cuDNN")


def check_auto_precision() -> Iterator[Finding]:
    """What `precision = "auto"` would choose for Delta here, and why."""
    device = choose_device("auto")
    network = build_model(ModelSettings(), channels=1, scale=2, sigma=3.0, noise=1e-3).to(device)
    for work in ("training", "upscaling"):
        choice = choose_precision("auto", network, 1, device, SIDE // 2 if work == "training" else 0)
        yield Finding("precision", work, "ok", f"auto takes {choice.precision}: {choice.reason}")


def _reference(conv: Conv3d, image: torch.Tensor) -> list[torch.Tensor]:
    leaf = image.double().requires_grad_()
    out = F.conv3d(leaf, conv.weight.double(), conv.bias.double(), padding=1)
    gradient, = torch.autograd.grad(out.square().sum(), leaf)
    return [out.detach(), gradient]


def _measure(conv: Conv3d, image: torch.Tensor, precision: str, device: torch.device
             ) -> tuple[list[torch.Tensor], float]:
    """Output and gradient, and GFLOP/s of the forward pass."""
    leaf = image.clone().requires_grad_()
    with autocast(device, precision):
        out = conv(leaf)
        gradient, = torch.autograd.grad(out.float().square().sum(), leaf)
    flops, count, started = 2 * 27 * CHANNELS**2 * DEPTH * SIDE**2, 0, time.monotonic()
    with torch.inference_mode(), autocast(device, precision):
        while time.monotonic() - started < SECONDS:
            conv(image)
            count += 1
            if device.type == "cuda":
                torch.cuda.synchronize()
    return [out.detach(), gradient], flops * count / (time.monotonic() - started) / 1e9
