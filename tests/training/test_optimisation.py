"""The optimiser's steps: learning rates of the layers and what they are for, and gradients that are not finite."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from patterns import moving_pattern

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.degrade import degrade
from hpc_vsr.data.patches import Patch
from hpc_vsr.experiment.settings import TrainSettings
from hpc_vsr.models.build import build_model
from hpc_vsr.models.core import Core
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.system.errors import Failed
from hpc_vsr.system.ranks import join_ranks
from hpc_vsr.training.objective import compute_loss
from hpc_vsr.training.optimisation import Optimisation, build_adam, restore_adam

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


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_that_is_not_finite_changes_nothing(fused):
    settings = TrainSettings(batch_size=2, patch_size=12, warmup_steps=1, steps=20)
    with join_ranks("cpu") as ranks:
        optimisation = Optimisation(build(n_2d=1, n_3d=1), settings, ranks, Path("run"))
        optimisation.optimiser = build_adam(optimisation.network, 1e-3, fused)
        margin = 2 * optimisation.network.reach
        patch = Patch(torch.rand(2, 1, 5, 12 + margin, 12 + margin), torch.rand(2, 1, 20, 20))
        broken = Patch(patch.lr * torch.inf, patch.hr)

        def step(batch: Patch) -> dict[str, torch.Tensor]:
            optimisation.read(optimisation.take_step(batch))
            return copy.deepcopy(optimisation.network.state_dict())
        first, second, third = step(patch), step(broken), step(patch)
        assert all(torch.equal(value, first[name]) for name, value in second.items())
        assert any(not torch.equal(value, second[name]) for name, value in third.items())
        moments = optimisation.optimiser.state_dict()["state"][0]
        assert (moments["step"], optimisation.step, optimisation.skipped, optimisation.bad_steps) == (2, 3, 1, 0)
        with pytest.raises(Failed, match="not finite in 10 steps in a row up to step 13"):
            for _ in range(10):
                step(broken)


def test_one_kernel_for_all_weights_makes_the_same_steps():
    ours, theirs = build(n_2d=1, n_3d=1), build(n_2d=1, n_3d=1)
    optimisers = [build_adam(ours, 1e-3, fused=True), build_adam(theirs, 1e-3)]
    for seed in range(3):
        for network, optimiser in zip((ours, theirs), optimisers, strict=True):
            torch.manual_seed(seed)
            for weight in network.parameters():
                weight.grad = torch.randn_like(weight)
            optimiser.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    restore_adam(optimisers[0], optimisers[1].state_dict(), "step-00000003.pt")  # a run of a CPU goes on with a GPU
    assert all(group["fused"] for group in optimisers[0].param_groups)
    restore_adam(optimisers[1], optimisers[0].state_dict(), "step-00000003.pt")  # and back
    assert not any(group["fused"] for group in optimisers[1].param_groups)
