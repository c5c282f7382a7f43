"""Checks that the networks compute the same as in float64: outputs, gradients, tiles, steps."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch

from gpu_kit.kit import Item, Kit, first_difference, record
from gpu_kit.reference import GREY, LR_SIZE, NAMES, build, frame, gradients, patch, psnr_change, recorded
from hpc_vsr.models.network import Network
from hpc_vsr.models.precision import autocast
from hpc_vsr.training.objective import Objective

# In float32 only rounding is allowed. 16 bits may cost a grey level at one pixel, 0.02 dB, and a tenth of the detail
# that the network adds. The error of a wrong kernel is as large as the detail itself.
MOST_GREY = {"fp32": 2e-3, "bf16": 1.0, "fp16": 1.0}
MOST_DB = 0.02
OF_DETAIL = {"fp32": 2e-3, "bf16": 0.1, "fp16": 0.1}
OF_GRADIENT = {"fp32": 2e-3, "bf16": 0.2, "fp16": 0.2}
ADAM_STEPS = 5


def check_outputs(kit: Kit, name: str) -> Iterator[dict]:
    """Compare a frame in every precision with float64."""
    right = recorded(name)
    bare = build(name)
    torch.nn.init.zeros_(bare.core.last.weight)
    torch.nn.init.zeros_(bare.core.last.bias)
    detail = np.std(GREY * (right.out - _enlarged(kit, bare, "fp32")))
    for precision in ("fp32", "bf16", "fp16"):
        error = GREY * np.abs((found := _enlarged(kit, build(name), precision)) - right.out)
        most, rms, change = float(error.max()), float(np.sqrt(np.mean(error**2))), psnr_change(found, right.out)
        ok = most <= MOST_GREY[precision] and abs(change) <= MOST_DB and rms <= OF_DETAIL[precision] * detail
        yield record(f"{name}, {precision}", bool(ok), most_grey_levels=round(most, 6), rms_grey_levels=round(rms, 6),
                     detail_grey_levels=round(float(detail), 3), change_dB=round(change, 5))


def check_gradients(kit: Kit, name: str) -> Iterator[dict]:
    """Compare the gradients of a training step in every precision with float64."""
    right = recorded(name)
    for precision in kit.precisions:
        network = build(name).to(kit.device)
        lr, hr = (values.to(kit.device) for values in patch(network))
        with autocast(kit.device, precision):
            loss, found = gradients(network, lr, hr)
        error = float(np.linalg.norm(found - right.gradients) / np.linalg.norm(right.gradients))
        each = np.linalg.norm(found - right.gradients, axis=1) / np.linalg.norm(right.gradients, axis=1)
        ok = error <= OF_GRADIENT[precision] and float(np.median(each)) <= OF_GRADIENT[precision]
        yield record(f"{name}, {precision}", bool(ok), relative_error=float(f"{error:.2e}"),
                     of_a_parameter=[float(f"{value:.1e}") for value in (np.median(each), each.max())],
                     loss_error=float(f"{abs(loss / right.loss - 1):.2e}"))


def check_tiles(kit: Kit, name: str) -> Iterator[dict]:
    """Compare a frame in tiles with the whole frame, in float32."""
    network = build(name).to(kit.device)
    (height, width), tile = ((88, 80), 40) if kit.on_gpu else ((40, 36), 32)
    lr = frame(height, width).to(kit.device)
    with torch.inference_mode():
        whole, tiled = network.upscale(lr, tile=0), network.upscale(lr, tile=tile)
    most = GREY * (whole - tiled).abs().max().item()
    yield record(name, most <= MOST_GREY["fp32"], most_grey_levels=round(most, 6))


def check_steps(kit: Kit, name: str) -> Iterator[dict]:
    """Make five steps of Adam on this device and on the CPU: the losses must agree."""
    losses = {device: _losses(build(name), torch.device(device)) for device in dict.fromkeys((kit.device.type, "cpu"))}
    ours, theirs = losses[kit.device.type], losses["cpu"]
    off = max(abs(one / other - 1) for one, other in zip(ours, theirs, strict=True))
    yield record(name, off <= 1e-3 and ours[-1] < ours[0], first_loss=round(ours[0], 6), last_loss=round(ours[-1], 6),
                 relative_error=float(f"{off:.2e}"))


def _enlarged(kit: Kit, network: Network, precision: str) -> np.ndarray:
    with torch.inference_mode(), autocast(kit.device, precision):
        return network.to(kit.device).upscale(frame(*LR_SIZE).to(kit.device))[0, 0].double().cpu().numpy()


def _losses(network: Network, device: torch.device) -> list[float]:
    lr, hr = (values.to(device) for values in patch(network))
    network = network.to(device)
    objective, optimiser = Objective(network, 0.1), torch.optim.Adam(network.parameters(), lr=1e-4)
    losses = []
    for _ in range(ADAM_STEPS):
        optimiser.zero_grad(set_to_none=True)
        loss = objective(lr, hr, "mse")
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def check_ddp(kit: Kit) -> Iterator[dict]:
    """Compare a step through DistributedDataParallel, in a group of one by NCCL or gloo, with the plain step."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    plain = build("delta").to(kit.device)
    joined = copy.deepcopy(plain)
    lr, hr = (values.to(kit.device) for values in patch(plain))
    library = "nccl" if kit.on_gpu else "gloo"
    dist.init_process_group(library, store=dist.HashStore(), rank=0, world_size=1)
    try:
        module = DistributedDataParallel(Objective(joined, 0.0), broadcast_buffers=False, gradient_as_bucket_view=True)
        for objective in (Objective(plain, 0.0), module):
            objective(lr, hr, "mse").backward()
        pairs = [dict(enumerate(parameter.grad for parameter in network.parameters())) for network in (plain, joined)]
        off = first_difference(*pairs)
    finally:
        module = None  # one that lives on would keep the group
        dist.destroy_process_group()
    scale = max(gradient.abs().max().item() for gradient in pairs[0].values())
    yield record(f"a step by {library}", off <= 1e-5 * scale, largest_difference=float(f"{off:.2e}"),
                 largest_gradient=float(f"{scale:.2e}"))


def check_every_network(kit: Kit) -> Iterator[dict]:
    for name in NAMES:
        for check in (check_gradients, check_tiles, check_steps):
            for found in check(kit, name):
                yield {**found, "what": f"{check.__name__.removeprefix('check_')}: {found['what']}"}


def outputs_of(*names: str) -> Item:
    def run(kit: Kit) -> Iterator[dict]:
        for name in names:
            yield from check_outputs(kit, name)
    return Item(f"outputs: {', '.join(names)}", run, estimate=5, limit=120)


DELTA = outputs_of("delta")
OTHERS = outputs_of("parallel5", "previous", "flow4x")
NETWORKS = Item("every network: gradients, tiles, steps", check_every_network, estimate=20, limit=60)
DDP = Item("DistributedDataParallel", check_ddp, estimate=5, limit=40)
