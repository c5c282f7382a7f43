"""A frame costs no more launches and moves no more bytes than it did: counted on tensors without values.

On a GPU small kernels and passes over whole volumes cost more than arithmetic. They are counted in the formulation for
GPUs, in float32, for a frame of 450x300. A change that lowers a count lowers its ceiling here.
"""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hpc_vsr.data.patches import gather
from hpc_vsr.models.blocks import Recursive, as_on_gpu
from hpc_vsr.models.build import build_model
from hpc_vsr.models.settings import ModelSettings

SIZE = 150, 225  # of LR
CEILINGS = {"compact": (41, 0.221), "delta": (131, 7.62), "parallel5": (232, 28.3), "previous": (46, 2.79),
            "flow4x": (601, 31.8)}  # launches, GB


class Cost(TorchDispatchMode):
    """Counts operations that compute or copy, and the bytes that they read and write; views cost nothing."""

    def __init__(self):
        super().__init__()
        self.launches = self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        read = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        written = [value for value in tree_leaves(out) if isinstance(value, torch.Tensor)]
        if not written or function.is_view or function._schema.name in ("aten::empty", "aten::detach"):
            return out
        self.launches += 1
        self.bytes += sum(value.numel() * value.element_size() for value in (*read, *written))
        return out


def cost_of_frame(name: str) -> tuple[int, float]:
    network = build_model(ModelSettings(name=name, skip="wiener", input="deconvolved"), 1, 4 if name == "flow4x" else 2,
                          3.0, 1e-3).eval().requires_grad_(False).to("meta")
    frame = torch.empty(1, 1, *SIZE, device="meta")
    with torch.inference_mode(), as_on_gpu():
        seen = [network.prepare(frame)] * network.frames
        with Cost() as cost:  # in a stream one frame is prepared for each that is made
            network.prepare(frame)
            network.upscale_seen(seen, tile=0)
    return cost.launches, cost.bytes / 1e9


@pytest.mark.parametrize("name", CEILINGS)
def test_a_frame_stays_under_its_ceiling(name):
    launches, gigabytes = cost_of_frame(name)
    assert launches <= CEILINGS[name][0] and gigabytes <= 1.005 * CEILINGS[name][1], (launches, gigabytes)


def test_one_more_pass_over_a_volume_is_noticed(monkeypatch):
    forward = Recursive.forward
    monkeypatch.setattr(Recursive, "forward", lambda self, x: forward(self, x) + 0)
    for name in ("delta", "parallel5"):
        launches, gigabytes = cost_of_frame(name)
        assert launches > CEILINGS[name][0] and gigabytes > 1.005 * CEILINGS[name][1], (name, launches, gigabytes)


@pytest.mark.parametrize("batch_size", [2, 32])
def test_a_batch_is_cut_in_few_launches_whatever_its_size(batch_size):
    """One by one, each patch took 10 to 17."""
    frames = torch.empty(20, 1, 150, 225, dtype=torch.uint8, device="meta")
    lines = torch.zeros(batch_size, 92, dtype=torch.int64)
    with Cost() as cost:
        cut = gather(frames.flatten(), torch.zeros(batch_size, 1, 5, dtype=torch.int64), lines[:, 0], lines, lines,
                     torch.zeros(batch_size, dtype=torch.bool))
    assert cut.shape == (batch_size, 1, 5, 92, 92) and cost.launches <= 16
