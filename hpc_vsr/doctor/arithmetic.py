"""Checks the GPUs as torch sees them, and whether the networks' convolutions are right and fast in every precision."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from hpc_vsr.doctor.findings import Finding, ask
from hpc_vsr.models.blocks import Conv3d
from hpc_vsr.models.build import build_model
from hpc_vsr.models.precision import autocast, choose_precision
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.gpus import check_code_for, choose_device, own_device, why_none

CHANNELS, DEPTH, SIDE = 20, 5, 64  # a 3D layer somewhat wider than Delta's
LARGE = 512  # side with which a GPU's rate is measured; a smaller one would time the launches
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2, "fp16": 3e-3}  # relative to the largest output; bf16 has 8 bits, fp16 11
SECONDS = 0.3  # how long a rate is measured
AT_ONCE = 4  # launches between two waits for the GPU


def check_gpus() -> Iterator[Finding]:
    """Check that torch sees the GPUs, has code for them and was given as many as SLURM promised."""
    built = f"torch {torch.__version__}"
    driver = _driver()
    if not torch.cuda.is_available():
        given = os.environ.get("SLURM_GPUS_ON_NODE") or os.environ.get("CUDA_VISIBLE_DEVICES")
        reason, _, advice = why_none().partition("; ")
        yield Finding("GPU", "torch", "broken" if given else "warning", f"{reason}: training runs on the CPU"
                      + (f"; {driver}" if driver else ""), advice if given or driver else
                      "on a GPU node this line must say ok")
        return
    count = torch.cuda.device_count()
    names = ", ".join(f"{torch.cuda.get_device_name(index)} "
                      f"({torch.cuda.get_device_properties(index).total_memory / 2**30:.0f} GiB)"
                      for index in range(count))
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    yield Finding("GPU", "torch", "ok", f"{built}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, "
                  f"NCCL {nccl}{f'; {driver}' if driver else ''}")
    yield Finding("GPU", "visible", "ok", names)
    yield from _check_code(count)
    given = os.environ.get("SLURM_GPUS_ON_NODE", "")
    if given.isdecimal() and int(given) != count:
        yield Finding("GPU", "binding", "warning", f"SLURM gave {given}, this process sees {count}",
                      "start ranks with srun --gpu-bind=none: one visible GPU a rank loses NVLink")
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        yield Finding("GPU", "bf16", "warning", "this GPU has no bf16",
                      "leave train.precision at auto, which takes fp16")


def _driver() -> str:
    """Return nvidia-smi's version of the driver and the newest CUDA that it runs; empty without nvidia-smi."""
    shown = ask(["nvidia-smi"]).stdout
    found = re.search(r"Driver Version:\s*([\d.]+).*?CUDA Version:\s*([\d.]+)", shown)
    return f"driver {found[1]} for CUDA up to {found[2]}" if found else ""


def _check_code(count: int) -> Iterator[Finding]:
    """Check whether this torch has code for each of the GPUs."""
    for index in range(count):
        major, minor = torch.cuda.get_device_capability(index)
        found = f"compute capability {major}.{minor}; torch has {', '.join(torch.cuda.get_arch_list())}"
        try:
            check_code_for(torch.device("cuda", index))
        except InputError as error:
            yield Finding("GPU", f"code for {index}", "broken", found, str(error).rpartition("; ")[2])
        else:
            yield Finding("GPU", f"code for {index}", "ok", found)


def check_convolutions() -> Iterator[Finding]:
    """Compare the networks' 3D convolution, forward and backward, with torch's own in float64."""
    device = own_device(choose_device("auto"))
    torch.manual_seed(0)
    conv = Conv3d(CHANNELS, CHANNELS, 3, padding=1)
    image = torch.randn(1, CHANNELS, DEPTH, SIDE, SIDE)
    wanted = _reference(conv, image)
    conv, image = conv.to(device), image.to(device)
    for precision, tolerance in TOLERANCE.items():
        found, rate = _measure(conv, image, precision, device)
        error = max(((one.double().cpu() - other).abs().max() / other.abs().max()).item()
                    for one, other in zip(found, wanted, strict=True))
        right = error < tolerance  # False for NaN
        yield Finding("arithmetic", precision, "ok" if right else "broken",
                      f"{device.type}: error {error:.1e} of {tolerance:.0e} allowed, {rate:,.0f} GFLOP/s",
                      "" if right else f"do not train in {precision} here; try another version of torch, which "
                      "brings another cuDNN")


def check_auto_precision() -> Iterator[Finding]:
    """Report what `precision = "auto"` would choose for Delta here, and why."""
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
    """Return output and gradient, and the GFLOP/s of the forward pass."""
    leaf = image.clone().requires_grad_()
    with autocast(device, precision):
        out = conv(leaf)
        gradient, = torch.autograd.grad(out.float().square().sum(), leaf)
    return [out.detach(), gradient], _rate(conv, image, precision, device)


def _rate(conv: Conv3d, image: torch.Tensor, precision: str, device: torch.device) -> float:
    """Return the GFLOP/s of the forward pass, without the time to choose its kernels."""
    if device.type == "cuda":
        image = torch.randn(1, CHANNELS, DEPTH, LARGE, LARGE, device=device)
    flops = 2 * 27 * CHANNELS**2 * DEPTH * image.shape[-1] ** 2
    count, finish = 0, torch.cuda.synchronize if device.type == "cuda" else lambda: None
    with torch.inference_mode(), autocast(device, precision):
        conv(image)
        finish()
        started = time.monotonic()
        while time.monotonic() - started < SECONDS:
            for _ in range(AT_ONCE):
                conv(image)
            finish()
            count += AT_ONCE
    return flops * count / (time.monotonic() - started) / 1e9
