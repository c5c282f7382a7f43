"""The learning rates of the layers, and what they are for."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from patterns import moving_pattern

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.degrade import degrade
from hpc_vsr.models.build import build_model
from hpc_vsr.models.core import Core
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.training.objective import compute_loss
from hpc_vsr.training.optimisation import build_adam, restore_adam

NETWORKS = [("delta", 2), ("parallel5", 2), ("previous", 2), ("flow4x", 4), ("compact", 2)]


def build(name="delta", scale=2, skip="wiener", **settings):
    torch.manual_seed(0)
    return build_model(ModelSettings(name=name, skip=skip, **settings), 1, scale, sigma=3.0, noise=1e-3)


@pytest.mark.parametrize(("name", "scale"), NETWORKS)
def test_only_a_last_layer_behind_a_residual_path_learns_slowly(name, scale):
    for skip, rate in (("wiener", 1.0 if name == "compact" else 0.1), ("none", 1.0)):
        network = build(name, scale, skip)
        groups = build_adam(network, 1e-3).param_groups
        assert [group["rate"] for group in groups] == [1.0, rate]
        assert list(map(id, groups[1]["params"])) == list(map(id, network.core.last.parameters()))
        # the order of one group, in which earlier versions saved their moments
        assert [id(weight) for group in groups for weight in group["params"]] == list(map(id, network.parameters()))


def test_a_run_of_an_earlier_version_goes_on_with_one_rate():
    network = build()
    earlier = torch.optim.Adam(network.parameters(), lr=1e-3)
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    earlier.step()
    saved = copy.deepcopy(earlier.state_dict())
    optimiser = build_adam(network, 1e-3)
    restore_adam(optimiser, saved, "step-00000001.pt")
    assert [group["rate"] for group in optimiser.param_groups] == [1.0, 1.0]
    assert optimiser.state_dict()["state"].keys() == saved["state"].keys()
    again = build_adam(network, 1e-3)
    restore_adam(again, optimiser.state_dict(), "step-00000002.pt")  # saved by this version, still with one rate
    assert [group["rate"] for group in again.param_groups] == [1.0, 1.0]


def first_losses(num_steps=5):
    """Return the training loss of the first steps as a share of the residual path's own."""
    network = build(input="deconvolved")
    hr = moving_pattern(5, 120, 120).mean(3, dtype=np.float32)[None] / 255
    lr = np.stack([degrade(frame[None], Degradation(sigma=3.0, scale=2))[0] for frame in hr[0]])
    lr, margin = torch.from_numpy(lr)[None, None], 2 * (network.reach + 1)
    target = torch.from_numpy(hr)[None, :, 2, margin:-margin, margin:-margin]
    optimiser, losses = build_adam(network, 1e-3), []
    for step in range(num_steps):
        for group in optimiser.param_groups:
            group["lr"] = group["rate"] * 1e-3 * (step + 1) / 50
        optimiser.zero_grad()
        loss = compute_loss("charbonnier", network(lr), target)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return torch.tensor(losses) / losses[0]


def test_the_first_steps_do_not_overshoot(monkeypatch):
    """Where they do, the layers learn to be silent, and the network stays dead."""
    assert first_losses().max() < 1.05
    monkeypatch.setattr(Core, "last_rate", 1.0)
    assert first_losses().max() > 1.2
