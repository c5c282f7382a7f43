"""The networks with known weights, and their results in float64: ``tests/golden/gpu_reference.npz``.

The weights come from numpy's legacy generator, whose numbers are the same in every version. This includes the last
convolution, which training starts at zero: with zeros there, every network would equal its residual path and every
comparison would hold. `tests/golden/make_gpu_reference.py` writes the file with torch's own convolutions.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hpc_vsr.models.blocks import RECURSIVE_GAIN, Conv2dToFew, Conv3d, Recursive
from hpc_vsr.models.build import build_model
from hpc_vsr.models.network import LOST, Network
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.training.objective import Objective

FILE = Path(__file__).resolve().parents[2] / "tests" / "golden" / "gpu_reference.npz"
NAMES = ("delta", "parallel5", "previous", "flow4x")
SIGMA, NOISE, SEED = 2.0, 1e-3, 2021
LR_SIZE, PATCH = (28, 36), 20  # LR pixels: the frame, and the side of the patch whose gradients are compared
FLOW_HEAD = "flow.refine.4"
LAST_STD = 0.1  # of the last convolution, times 1 / sqrt(fan in): some grey levels of detail
GREY = 255.0
NOISE_OF_TARGET = 12.0  # grey levels: about 26.5 dB, like a network in training


@dataclass(frozen=True)
class Answer:
    """Results of a network in float64.

    Attributes
    ----------
    out : (s h, s w) array
        Output for `frame()`, values 0..1.
    loss : float
    gradients : (P, 2) array
        For each parameter of the core: the norm of its gradient, and the sum of its products with fixed numbers.
    """

    out: np.ndarray
    loss: float
    gradients: np.ndarray


def build(name: str, recipe: str = "whole") -> Network:
    """Return a network with its known weights, float32 on the CPU.

    `recipe` is "whole", with the deconvolved input and the Wiener path of jobs/delta.toml, or "plain".
    """
    scale = 4 if name == "flow4x" else 2
    whole = {"skip": "wiener", "input": "plain" if name == "flow4x" else "deconvolved"}
    settings = ModelSettings(name=name, **(whole if recipe == "whole" else {"skip": "none", "input": "plain"}))
    network = build_model(settings, 1, scale, SIGMA, NOISE)
    random = np.random.RandomState(SEED)
    repeated = {id(parameter) for module in network.modules() if isinstance(module, Recursive)
                for parameter in module.parameters()}
    with torch.no_grad():
        for parameter_name, parameter in network.core.named_parameters():
            if parameter.ndim == 1:
                values = 0.02 * random.standard_normal(tuple(parameter.shape))
            else:
                gain = RECURSIVE_GAIN if id(parameter) in repeated else 1.0
                if parameter_name.startswith(FLOW_HEAD):
                    gain = 0.05  # for flows of a pixel, not of the whole frame
                fan_in = parameter[0].numel()
                values = gain * (2 / fan_in) ** 0.5 * random.standard_normal(tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(values))
        last = network.core.last.weight
        std = LAST_STD / last[0].numel() ** 0.5
        last.copy_(torch.from_numpy(std * random.standard_normal(tuple(last.shape))))
    return network.eval()


def stock(network: Network) -> Network:
    """Return the network with the same weights in torch's own convolutions."""
    plain = copy.deepcopy(network)
    for module in plain.modules():
        if isinstance(module, (Conv3d, Conv2dToFew)):
            module.__class__ = nn.Conv3d if isinstance(module, Conv3d) else nn.Conv2d
    return plain


def frame(height: int = LR_SIZE[0], width: int = LR_SIZE[1], batch: int = 1) -> Tensor:
    """Return (batch, 1, 5, height, width) float32, 0..1 in steps of 1/255.

    The frames show discs and waves that move, and a little noise.
    """
    random = np.random.RandomState(SEED + 1)
    rows, columns = np.mgrid[:height, :width]
    windows = []
    for number in range(batch):
        steps = []
        for time in range(5):
            shift = 1.3 * time + 0.7 * number
            wave = np.sin((columns + shift) / 2.3) * np.cos((rows - 0.6 * shift) / 3.1)
            disc = np.hypot(columns - width / 2 - shift, rows - height / 2) < height / 4
            steps.append(0.45 + 0.2 * wave + 0.25 * disc + 0.02 * random.standard_normal((height, width)))
        windows.append(steps)
    values = np.rint(GREY * np.clip(windows, 0, 1)) / GREY
    return torch.from_numpy(values[:, None].astype(np.float32))


def patch(network: Network, side: int = PATCH, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Return (lr, hr) of a training step: patches of `side` LR pixels with the margin that the network needs."""
    whole = side + 2 * network.reach
    lr = frame(whole, whole, batch)
    scale = 4 if network.has_flow else 2
    random = np.random.RandomState(SEED + 2)
    inner = slice(network.reach + LOST, network.reach + side - LOST)
    hr = lr[:, :, 2, inner, inner].repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    return lr, hr + torch.from_numpy((0.05 * random.standard_normal(hr.shape)).astype(np.float32))


def gradients(network: Network, lr: Tensor, hr: Tensor) -> tuple[float, np.ndarray]:
    """Return the loss, and for each parameter of the core its gradient's norm and product with fixed numbers."""
    objective = Objective(network, flow_weight=0.1)
    network.requires_grad_(True).zero_grad(set_to_none=True)
    loss = objective(lr, hr, "mse")
    loss.backward()
    return loss.item(), summarise([parameter.grad for parameter in network.core.parameters()])


def summarise(found: list[Tensor | None]) -> np.ndarray:
    random = np.random.RandomState(SEED + 3)
    rows = []
    for gradient in found:
        values = np.zeros(1) if gradient is None else gradient.double().cpu().numpy()
        rows.append((np.linalg.norm(values), (values * random.standard_normal(values.shape)).sum()))
    return np.array(rows)


def compute(name: str) -> Answer:
    """Compute the results with torch's own convolutions in float64 on the CPU."""
    network = stock(build(name)).double()
    with torch.inference_mode():
        out = network.upscale(frame().double())[0, 0].numpy()
    lr, hr = patch(network)
    return Answer(out, *gradients(network, lr.double(), hr.double()))


@functools.cache
def recorded(name: str) -> Answer:
    """Return the results in the file."""
    with np.load(FILE) as file:
        return Answer(file[f"{name}_out"], float(file[f"{name}_loss"]), file[f"{name}_gradients"])


def target(out: np.ndarray) -> np.ndarray:
    """Return a stand-in for HR with which a loss of quality is counted in dB: the right answer with noise."""
    random = np.random.RandomState(SEED + 4)
    return GREY * out + NOISE_OF_TARGET * random.standard_normal(out.shape)


def psnr_change(found: np.ndarray, right: np.ndarray) -> float:
    """Return the dB by which `found` is nearer to `target` than `right` is; values 0..1."""
    hr = target(right)
    return 10 * float(np.log10(np.mean((GREY * right - hr) ** 2) / np.mean((GREY * found - hr) ** 2)))
