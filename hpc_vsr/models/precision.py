"""Chooses the precision of a network: fp32, bf16, fp16, or auto, which finds out what is fast on this device."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path

import torch

from hpc_vsr.models.bf16 import find_wrong_layers, measure_convolutions
from hpc_vsr.models.network import Network
from hpc_vsr.models.settings import Choice, Precision
from hpc_vsr.system.errors import InputError

TENSOR_CORES = (7, 0)  # lowest compute capability of a GPU that is fast in fp16


def choose_precision(asked: Precision, network: Network, channels: int, device: torch.device, patch_size: int = 0,
                     rounding_shows: bool = False, where: str = "precision") -> Choice:
    """Return the precision in which a network computes on a device.

    On a GPU, ``auto`` takes bf16 if the GPU has it natively, else fp16 if the GPU is fast in it. On a CPU it measures
    the network's convolutions and takes the faster precision; it takes bf16 only if every convolution is right in it.

    Parameters
    ----------
    asked : {"auto", "fp32", "bf16", "fp16"}
    network : Network
    channels : int
        Channels of the network's input.
    device : torch.device
    patch_size : int
        Side of a training patch in LR pixels, for which gradients are measured too; 0 for inference.
    rounding_shows : bool
        Whether rounding to half precision would show in the result, because its values are finer: fields through a
        network without a residual path. auto then takes fp32.
    where : str
        Name of the setting, for errors.

    Raises
    ------
    InputError
        If the device cannot compute in the precision asked for; see `check_precision`.
    """
    check_precision(asked, device, where)
    name = device_name(device)
    if asked != "auto":
        return Choice(asked, "as asked for", name)
    if rounding_shows and not patch_size:
        return Choice("fp32", "half precision would round the values of a field, for the network has no residual path "
                      "(model.skip)", name)
    if device.type == "cuda":
        return Choice(*_choose_on_gpu(device), name)
    timing = measure_convolutions(network, channels, training=patch_size > 0)
    if timing.fastest == "bf16" and (wrong := find_wrong_layers(network, channels, patch_size)):
        reason = f"torch {torch.__version__} computes {', '.join(wrong)} wrongly in bf16 on this CPU"
        return Choice("fp32", reason, name)
    return Choice(timing.fastest, str(timing), name)


def check_precision(precision: Precision, device: torch.device, where: str = "precision") -> None:
    """Raise `InputError` if `device` has no such arithmetic.

    fp16 on a CPU is emulated, up to a hundred times slower than fp32, and bf16 on a GPU without it likewise.
    """
    if precision == "fp16" and device.type == "cpu":
        raise InputError(f"{where}: fp16 is for GPUs; a CPU computes in it many times slower than in fp32; use auto, "
                         "bf16 or fp32")
    if precision == "bf16" and device.type == "cuda" and not _has_bf16():
        raise InputError(f"{where}: {device_name(device)} has no bf16; use auto, fp16 or fp32")


def warn_of_other_device(begun: Choice, here: Choice, device: torch.device, where: str) -> str:
    """Return a warning if work that was begun elsewhere goes on here in the precision that was chosen there; else "".

    Parameters
    ----------
    begun, here : Choice
        The choice of the process that began the work, and the one that would be made now.
    device : torch.device
    where : str
        Folder or file of the work, named in the warning.

    Raises
    ------
    InputError
        If this device cannot go on in that precision.
    """
    try:
        check_precision(begun.precision, device)
    except InputError as error:
        reason = str(error).partition(": ")[2].rpartition("; ")[0]
        raise InputError(f"{where}: was begun in {begun.precision} on {begun.device}: {reason}; go on where it was "
                         "begun, or begin anew under another name") from None
    if begun.device == here.device and begun.precision == here.precision:
        return ""
    other = f", where auto takes {here.precision} ({here.reason})" if begun.precision != here.precision else ""
    return (f"warning: {where}: was begun in {begun.precision} on {begun.device} and goes on in it on {here.device}"
            f"{other}; the last digits may differ from those of one machine")


def warn_of_bf16(choice: Choice, network: Network, channels: int, device: torch.device, patch_size: int = 0) -> str:
    """Return a warning if bf16, as the user asked, is slower than fp32 on this CPU or wrong; else an empty text."""
    if device.type != "cpu" or choice.precision != "bf16":
        return ""
    auto = choose_precision("auto", network, channels, device, patch_size)
    return "" if auto.precision == "bf16" else f"warning: auto would take fp32 instead of bf16 here: {auto.reason}"


def device_name(device: torch.device) -> str:
    """Return the name that the GPU or the processor gives itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        entries = dict(line.split("\t", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if "\t" in line)
        facts = {name.strip(): value.strip(": ") for name, value in entries.items()}
        if "model name" in facts:
            return facts["model name"]
        if "CPU part" in facts:  # Arm gives numbers instead of a name
            return f"{platform.machine()} {facts.get('CPU implementer', '')} {facts['CPU part']}"
    return platform.machine()


def autocast(device: torch.device, precision: str):
    """Return the context in which a network computes in ``fp32``, ``bf16`` or ``fp16``."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def _choose_on_gpu(device: torch.device) -> tuple[str, str]:
    name = device_name(device)
    if _has_bf16():
        return "bf16", f"{name} computes in it"
    if torch.cuda.get_device_capability(device) >= TENSOR_CORES:
        return "fp16", f"{name} has no bf16; in training the loss is scaled"
    return "fp32", f"{name} is fast in neither bf16 nor fp16"


def _has_bf16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)
