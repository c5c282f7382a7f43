"""Our own network: its size, its scales, and what is refused for it."""

from __future__ import annotations

import pytest
import torch

from hpc_vsr.models.blocks import count_parameters
from hpc_vsr.models.build import build_model
from hpc_vsr.models.enlarge import Enlarge
from hpc_vsr.models.network import Network
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.system.errors import InputError

pytestmark = pytest.mark.compute


def build(scale=2, channels=1, **settings):
    torch.manual_seed(0)
    return build_model(ModelSettings(name="compact", **settings), channels, scale, sigma=3.0, noise=1e-3)


def test_it_has_fewer_parameters_than_delta():
    assert count_parameters(build()) == 74884 < 83702
    assert count_parameters(build(width=48, blocks=20)) == 835300
    assert count_parameters(build(width=64, blocks=6)) == 448388


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_gives_exactly_its_scale(scale, channels):
    network = build(scale, channels, skip="wiener", input="deconvolved")
    with torch.inference_mode():
        assert network.upscale(torch.rand(1, channels, 5, 17, 22)).shape == (1, channels, 17 * scale, 22 * scale)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_it_begins_at_its_residual_path(scale):
    lr = torch.rand(1, 1, 5, 24, 30)
    with torch.inference_mode():
        out = build(scale, skip="bicubic").upscale(lr)
        torch.testing.assert_close(out, Enlarge("bicubic", scale)(lr[:, :, 2]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_tiles_give_the_result_of_the_whole_frame(scale):
    network, lr = build(scale), torch.rand(1, 1, 5, 50, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network.upscale(lr, tile=16), network.upscale(lr, tile=0), rtol=1e-4, atol=1e-5)
    assert network.core_reach == 16  # sixteen 3x3 convolutions


def test_every_frame_counts():
    network, lr = build(), torch.rand(1, 1, 5, 12, 12)
    with torch.inference_mode():
        before = network.upscale(lr)
        for position in range(5):
            changed = lr.clone()
            changed[:, :, position] += 0.5
            assert not torch.equal(network.upscale(changed), before), position


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("name", ["compact", "delta", "parallel5", "previous"])
def test_a_network_sees_only_its_frames(name, frames):
    torch.manual_seed(0)
    shallow = {} if name in ("compact", "previous") else {"n_2d": 1, "n_3d": 1}
    settings = ModelSettings(name=name, frames=frames, input="deconvolved", **shallow)
    network = build_model(settings, 1, 2, sigma=1.0, noise=1e-2)
    lr = torch.rand(1, 1, 5, 8, 8)
    with torch.inference_mode():
        before = network.upscale(lr)
        for position in range(5):
            changed = lr.clone()
            changed[:, :, position] += 0.5
            seen = abs(position - 2) <= frames // 2
            assert torch.equal(network.upscale(changed), before) != seen, position


@pytest.mark.parametrize("frames", [1, 3])
def test_the_centre_frame_stands_in_for_what_the_papers_networks_do_not_see(frames):
    torch.manual_seed(0)
    network = build_model(ModelSettings(name="delta", frames=frames), 1, 2, sigma=1.0, noise=1e-2)
    whole = Network(network.core, None, None)
    lr = torch.rand(1, 1, 5, 12, 12)
    shown = {1: [2, 2, 2, 2, 2], 3: [2, 1, 2, 3, 2]}[frames]
    with torch.inference_mode():
        torch.testing.assert_close(network.upscale(lr), whole.upscale(lr[:, :, shown]), rtol=0, atol=0)


def test_fewer_frames_are_fewer_weights():
    assert count_parameters(build(frames=5)) - count_parameters(build(frames=1)) == 4 * 24 * 9
    assert build(frames=1).find_core_reach(1) == 16


@pytest.mark.parametrize(("settings", "words"), [
    ({"name": "flow4x", "frames": 3}, "model.frames: flow4x finds the motion between five frames"),
    ({"name": "compact", "n_2d": 3}, "model.n_2d: does nothing for compact"),
    ({"name": "compact", "recursive_streams": [1]}, "model.recursive_streams: does nothing for compact"),
    ({"name": "delta", "width": 64}, "model.width: does nothing for delta, it is a setting of compact"),
    ({"name": "delta", "features_2d": 24}, "model.features_2d: does nothing for delta, it is a setting of parallel5"),
    ({"name": "compact", "features_2d": 24}, "model.features_2d: does nothing for compact"),
    ({"name": "parallel5", "features_2d": 0}, "features_2d must be 1 to 1024"),
    ({"name": "compact", "blocks": 0}, "blocks 1 to 256"),
])
def test_settings_of_other_networks_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        ModelSettings(**settings)
