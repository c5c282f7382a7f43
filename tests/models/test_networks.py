"""The networks of the paper: sizes, and 5-parallel against an independent computation by the published names."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from repository import GOLDEN
from stages import assert_refused, run_code, run_stage
from torch.utils.flop_counter import FlopCounterMode

from hpc_vsr.evaluation.published import UNUSED, convert_weights, published_names
from hpc_vsr.models.blocks import count_parameters
from hpc_vsr.models.build import build_model
from hpc_vsr.models.flops import count_flops
from hpc_vsr.models.flow import FlowPyramid, photometric_error, warp
from hpc_vsr.models.parallel5 import Parallel5
from hpc_vsr.models.previous import FrameNetwork, Previous
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import load_trained

pytestmark = pytest.mark.compute

SHAPES = {  # of the published files: layer -> (out, in, *kernel), transposed ones (in, out, *kernel)
    **{f"first2dConv{i}": (32, 1, 5, 5) for i in range(1, 6)},
    **{f"twodConvBlock{i}1.1": ("f", 32, 1, 1) for i in range(1, 6)},
    **{f"twodConvBlock{i}2.{j}": ("f", "f", 3, 3) for i in range(1, 6) for j in (0, 2)},
    **{f"twodConvBlock{i}3.1": (32, "f", 1, 1) for i in range(1, 6)},
    **{f"twodConvBlock{i}3.3": (32, 16, 4, 4) for i in range(1, 6)},
    **{f"twodConvBlock{i}3.5": (1, 16, 5, 5) for i in range(1, 6)},
    "threedConvBlock1.0": (32, 1, 5, 5, 3), "threedConvBlock1.2": (24, 32, 1, 1, 3),
    **{f"threedConvBlock{block}.{layer}": (24, 24, 3, 3, 3) for block in (2, 3, 4) for layer in (0, 2)},
    **{f"threedConvBlock5.{layer}": (24, 24, 3, 3, 3) for layer in (1, 3, 5)},
    "threedConvBlock5.7": (32, 24, 1, 1, 3), "threedConvBlock5.9": (32, 32, 3, 3, 3),
    "threedConvBlock5.11": (32, 32, 3, 3, 3), "output2dlayer": (1, 32, 5, 5), "output2dlayer2": (1, 1, 5, 5),
}


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return random_weights(12)


def random_weights(features_2d) -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of a published one and random values."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, sides in SHAPES.items():
        shape = tuple(features_2d if side == "f" else side for side in sides)
        fan_in = np.prod(shape[1:]) if ".3.3" not in name else shape[0] * 4
        recursive = name[-4:-2] in ("12", "22", "32", "42", "52") or name[:-3] == "threedConvBlock" and name[-3] in "24"
        gain = 0.3 if recursive else 1.4
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) * gain / fan_in**0.5
        outputs = shape[1] if name.endswith("3.3") and "twod" in name else shape[0]
        weights[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    return weights


def published_forward(weights: dict, lr: torch.Tensor) -> torch.Tensor:
    """5-parallel written out by the published names: (5, h, w) grey levels to (2h - 4, 2w - 4)."""

    def conv(name, x, padding=0):
        function = F.conv3d if weights[f"{name}.weight"].ndim == 5 else F.conv2d
        return function(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)

    maps = []
    for stream in range(5):
        x = torch.relu(conv(f"first2dConv{stream + 1}", lr[None, stream : stream + 1], 2))
        x = torch.relu(conv(f"twodConvBlock{stream + 1}1.1", x))
        for _ in range(4 if stream in (2, 3) else 0):
            block = f"twodConvBlock{stream + 1}2"
            x = torch.relu(conv(f"{block}.2", torch.relu(conv(f"{block}.0", x, 1)), 1) + x)
        last = f"twodConvBlock{stream + 1}3"
        x = torch.relu(conv(f"{last}.1", x))
        x = torch.relu(F.conv_transpose2d(x, weights[f"{last}.3.weight"], weights[f"{last}.3.bias"], 2, 1))
        maps.append(torch.relu(conv(f"{last}.5", x, 2)))
    x = torch.stack(maps, 2)
    x = torch.relu(conv("threedConvBlock1.0", x, (2, 2, 1)))
    x = torch.relu(conv("threedConvBlock1.2", x, (0, 0, 1)))
    for block in (2, 3, 4):
        for _ in range(1 if block == 3 else 5):
            name = f"threedConvBlock{block}"
            y = conv(f"{name}.2", torch.relu(conv(f"{name}.0", x, 1)), 1)
            x = torch.relu(y if block == 3 else y + x)
    for layer, padding in ((1, 1), (3, 1), (5, 1), (7, (0, 0, 1)), (9, 0), (11, 0)):
        x = torch.relu(conv(f"threedConvBlock5.{layer}", x, padding))
    x = conv("output2dlayer", x[:, :, 0], 2)
    return 255 * torch.sigmoid(x / 100)[0, 0]


@pytest.mark.parametrize("settings, parameters", [
    (ModelSettings(name="previous"), 10_577 + 63_129),
    (ModelSettings(name="previous", kernel_axes="temporal"), 10_577 + 63_129),
    (ModelSettings(name="parallel5"), 259_938),
    (ModelSettings(name="parallel5", n_2d=2, n_3d=7, kernel_axes="temporal", output_range=[0, 255]), 259_938),
    (ModelSettings(name="parallel5", recursive_streams=[0, 1, 2, 3, 4], num_recursive_blocks=2), 259_938),
    (ModelSettings(name="parallel5", recursive_streams=[0, 1, 2, 3, 4]), 267_786),
    (ModelSettings(name="parallel5", features_2d=24), 279_438),
    (ModelSettings(name="delta", kernel_axes="temporal"), 83_702),
])
def test_the_networks_have_the_parameters_of_the_report(settings, parameters):
    assert count_parameters(build_model(settings, 1, 2, 3.0, 1e-3)) == parameters


def test_the_two_stages_of_previous_have_the_parameters_of_the_report():
    assert count_parameters(FrameNetwork()) == 10_577
    assert count_parameters(Previous()) - count_parameters(FrameNetwork()) == 63_129


def test_the_published_names_cover_the_network(published):
    network = Parallel5()
    used = {f"{name}.{kind}" for name in published_names().values() for kind in ("weight", "bias")}
    unused = {f"{name}.{kind}" for name in UNUSED for kind in ("weight", "bias")}
    assert used | unused == set(published) and not used & unused
    assert sum(value.numel() for value in published.values()) == 267_812
    assert sum(published[name].numel() for name in used) == count_parameters(network) == 259_938


@pytest.mark.parametrize("features_2d", [12, 24])
def test_parallel5_is_the_published_network(features_2d):
    published = random_weights(features_2d)
    settings = ModelSettings(name="parallel5", value_range=255.0, output_range=[0, 255], features_2d=features_2d)
    network = build_model(settings, 1, 2, 3.0, 0.0)
    network.load_state_dict(convert_weights(published, network.state_dict(), "x"))
    lr = torch.rand(5, 14, 17, generator=torch.Generator().manual_seed(1)) * 255
    with torch.inference_mode():
        expected = published_forward(published, lr)
        found = 255 * network(lr[None, None] / 255)[0, 0]
    assert expected.std() > 1  # grey levels: the comparison means something
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-2)


def test_a_stream_of_the_published_weights_gives_what_the_authors_network_gives():
    """Stream 2 with the published weights on a cut of the published example; the expected map is from their names."""
    stored = np.load(GOLDEN / "parallel5_stream.npz")
    network = Parallel5()
    state = network.state_dict()
    names = published_names()
    for layer, theirs in names.items():
        for kind in ("weight", "bias"):
            if f"{theirs}.{kind}" in stored.files:
                state[f"{layer}.{kind}"] = torch.from_numpy(stored[f"{theirs}.{kind}"])
    network.load_state_dict(state)
    lr = torch.from_numpy(stored["lr"]).float()[None, None].repeat(1, 1, 5, 1, 1)
    with torch.inference_mode():
        found = network.frame_map(lr, 2)[0, 0].numpy()
    np.testing.assert_allclose(found, stored["map"], atol=1e-2)


def test_published_weights_become_a_run_that_is_measured_and_reported(published, dataset, tmp_path):
    torch.save({f"module.{name}": value for name, value in published.items()}, tmp_path / "published.pth")
    run = tmp_path / "parallel5_published"
    for _ in range(2):
        done = run_stage("import_weights", tmp_path / "published.pth", "--out", run)
        assert done.returncode == 0, done.stderr
    whole = (run / "config.json").read_bytes()
    (run / "config.json").write_bytes(whole[:-9])
    assert_refused(run_stage("evaluate", "--run", run, "--data", dataset), "config.json")
    assert run_stage("import_weights", tmp_path / "published.pth", "--out", run).returncode == 0
    assert (run / "config.json").read_bytes() == whole
    assert_refused(run_stage("evaluate", "--run", run), "name one with --data")
    done = run_stage("evaluate", "--run", run, "--data", dataset)
    assert done.returncode == 0 and "parallel5_published" in done.stdout, done.stderr
    done = run_stage("report", run)
    assert done.returncode == 0, done.stderr
    assert "weights of published.pth" in (run / "report" / "index.html").read_text()


def test_weights_with_more_features_become_a_run(tmp_path):
    torch.save(random_weights(24), tmp_path / "wide.pth")
    done = run_stage("import_weights", tmp_path / "wide.pth", "--out", tmp_path / "wide")
    assert done.returncode == 0, done.stderr
    trained = load_trained(RunFolder(tmp_path / "wide"))
    assert trained.settings.features_2d == 24 and count_parameters(trained.network) == 279_438
    assert torch.equal(trained.network.core.heads[4][2].weight, random_weights(24)["twodConvBlock51.1.weight"])


@pytest.mark.parametrize("change, words", [
    ({"output2dlayer.weight": None}, ["missing 1: output2dlayer.weight"]),
    ({"extra.weight": torch.zeros(1)}, ["unknown 1: extra.weight"]),
    ({"output2dlayer.bias": torch.zeros(2)}, ["output2dlayer.bias is (2,) instead of (1,)"]),
])
def test_weights_of_another_network_are_refused_by_name(published, tmp_path, change, words):
    changed = {name: value for name, value in {**published, **change}.items() if value is not None}
    torch.save(changed, tmp_path / "w.pth")
    assert_refused(run_stage("import_weights", tmp_path / "w.pth", "--out", tmp_path / "run"), "w.pth", *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [torch.full((1,), float("nan")), torch.zeros(1, dtype=torch.complex64),
                                   torch.zeros(1).to_sparse(), torch.zeros(1, dtype=torch.int64)])
def test_tensors_that_are_no_weights_are_refused(published, tmp_path, value):
    torch.save({**published, "output2dlayer.bias": value}, tmp_path / "w.pth")
    assert_refused(run_stage("import_weights", tmp_path / "w.pth", "--out", tmp_path / "run"), "output2dlayer.bias")


def test_flow4x_gives_exactly_four_times_the_size():
    for settings in (ModelSettings(name="flow4x"), ModelSettings(name="flow4x", skip="wiener", input="deconvolved")):
        network = build_model(settings, 1, 4, 3.0, 1e-3)
        lr = torch.rand(1, 1, 5, 9, 11)
        assert network.upscale(lr).shape == (1, 1, 36, 44)
        assert {flow.shape for flow in network.flows(lr).values()} == {(1, 2, 36, 44)}


def test_the_flow_learns_a_displacement():
    """A smooth texture moved by three pixels: after a short training the flow is there."""
    torch.manual_seed(0)
    flow = FlowPyramid(1)
    torch.nn.init.zeros_(flow.refine[-1].weight)
    optimiser = torch.optim.Adam(flow.parameters(), lr=2e-3)
    for _ in range(60):
        texture = F.interpolate(torch.rand(4, 1, 12, 12), size=(48, 56), mode="bicubic", align_corners=False)
        first, second = texture[..., 4:44, 8:48], texture[..., 4:44, 5:45]
        loss = photometric_error(first, second, flow(first, second))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        found = flow(first, second)[-1]
    still, moved = ((first - warp(second, field)).abs().mean() for field in (torch.zeros_like(found), found))
    assert moved < 0.5 * still
    assert found[:, 0].mean().item() == pytest.approx(3, abs=1)


def test_warping_reads_the_pixel_that_the_flow_points_to():
    frame = torch.arange(20.0).reshape(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    flow[:, 0], flow[:, 1] = 1, -1
    expected = frame[..., [0, 0, 1, 2], :][..., [1, 2, 3, 4, 4]]
    torch.testing.assert_close(warp(frame, flow), expected)


def test_operations_are_those_of_the_layers():
    """Delta's 93 and 5-parallel's 569 GFLOP for 225x150, without the margin that `upscale` adds."""
    for name, expected in (("delta", 93e9), ("parallel5", 569e9)):
        network = build_model(ModelSettings(name=name), 1, 2, 3.0, 1e-3)
        assert count_flops(network, 1, (148, 223)) == pytest.approx(expected, rel=0.01)


COUNT = """
import json, sys
from hpc_vsr.models.build import ModelSettings, build_model, count_flops

for settings in json.loads(sys.argv[1]):
    print(count_flops(build_model(ModelSettings(**settings), 2, 2, 1.5, [1e-3, 2e-3]), 2, (40, 50)))
print("torch._dynamo" in sys.modules)
"""


def test_operations_are_counted_without_the_compiler_which_takes_seconds_to_import():
    """The numbers are those of PyTorch's own counter."""
    settings = [{"name": "compact", "input": "deconvolved"}, {"name": "compact", "skip": "wiener", "align": True},
                {"name": "delta", "skip": "bicubic"}, {"name": "parallel5"}, {"name": "previous"}]
    done = run_code(COUNT, json.dumps(settings))
    *counts, has_compiler = done.stdout.split()
    assert has_compiler == "False", done.stderr
    for one, count in zip(settings, counts, strict=True):
        network = build_model(ModelSettings(**one), 2, 2, 1.5, [1e-3, 2e-3]).to("meta")
        with FlopCounterMode(display=False) as counter:
            network.upscale(torch.empty(1, 2, 5, 40, 50, device="meta"), tile=0)
        assert int(count) == counter.get_total_flops()


@pytest.mark.parametrize("arguments, words", [
    (("--model.recursive_streams", "[1, 7]"), ["recursive_streams", "0 to 4"]),
    (("--model.output_range", "[0, 255]", "--model.skip", "bicubic"), ["output_range", "skip"]),
    (("--model.output_range", "[5]"), ["output_range"]),
    (("--model.name", "flow4x"), ["flow4x enlarges 4 times, the data set is for 2 times"]),
    (("--model.num_recursive_blocks", "3"), ["num_recursive_blocks"]),
    (("--train.first_stage_steps", "3"), ["delta has no first stage"]),
    (("--train.num_frames", "500"), ["num_frames", "500 are more than the training split has"]),
    (("--train.mse_from", "2"), ["mse_from"]),
    (("--train.lr", "1e999"), ["train.lr", "a finite number"]),
])
def test_settings_that_do_not_fit_are_refused(dataset, tmp_path, arguments, words):
    done = run_stage("train", "--data", dataset, "--out", tmp_path / "r", "--train.steps", 6, "--train.patch_size", 12,
                     *arguments)
    assert_refused(done, *words)
    assert not (tmp_path / "r").exists()
