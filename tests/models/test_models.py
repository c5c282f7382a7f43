from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from patterns import moving_pattern

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.degrade import degrade
from hpc_vsr.models import blocks
from hpc_vsr.models.blocks import Conv2dToFew, Conv3d, count_parameters
from hpc_vsr.models.build import build_model
from hpc_vsr.models.delta import Delta
from hpc_vsr.models.enlarge import Enlarge
from hpc_vsr.models.flops import count_flops
from hpc_vsr.models.precision import autocast
from hpc_vsr.models.reduce import Reduce, back_project
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.models.tiles import PROBE
from hpc_vsr.system.errors import InputError

pytestmark = pytest.mark.compute
OURS = ModelSettings(skip="wiener", input="deconvolved", n_2d=1, n_3d=1)


def build(settings=OURS, channels=1):
    torch.manual_seed(0)
    return build_model(settings, channels, scale=2, sigma=3.0, noise=1e-3)


@pytest.mark.parametrize(
    "settings", [ModelSettings(), ModelSettings(depth="outer"), ModelSettings(n_2d=1, n_3d=7), OURS])
def test_delta_has_83702_parameters_whatever_its_depth(settings):
    assert count_parameters(build(settings)) == 83702


def test_the_parts_of_delta_have_the_parameters_of_the_report():
    delta = Delta()
    parts = {name: count_parameters(part) for name, part in delta.named_children()}
    assert parts == {"heads": 5 * 1096, "block": 584, "enlarge": 288 + 8208 + 401, "enter_3d": 2432 + 1164,
                     "block_3d": 7800, "leave_3d": 1184 + 55360, "last": 801}


@pytest.mark.parametrize("height, width", [(12, 15), (9, 20)])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes_are_those_of_the_report_and_of_the_user(height, width, channels):
    lr = torch.rand(2, channels, 5, height, width)
    assert Delta(channels, 1, 1)(lr).shape == (2, channels, 2 * height - 4, 2 * width - 4)
    for settings in (OURS, ModelSettings(n_2d=1, n_3d=1), ModelSettings(skip="bicubic", n_2d=1, n_3d=1)):
        assert build(settings, channels).upscale(lr).shape == (2, channels, 2 * height, 2 * width)


@pytest.mark.parametrize("kernel, padding", [((5, 5, 3), (2, 2, 1)), ((1, 1, 3), (0, 0, 1)), ((3, 3, 3), (1, 1, 1)),
                                             ((3, 3, 3), (0, 0, 0)), ((3, 5, 5), (1, 2, 2))])
@pytest.mark.parametrize("batch, channels", [(2, 4), (2, 12), (1, 12), (1, 32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_quick_convolution_is_conv3d(kernel, padding, batch, channels, dtype):
    """Folded, by oneDNN, and by oneDNN where torch would pass it by."""
    torch.manual_seed(0)
    layer = Conv3d(channels, 6, kernel, padding=padding).to(dtype)
    x = torch.rand(batch, channels, 5, 11, 12, requires_grad=True, dtype=dtype)
    plain = F.conv3d(x, layer.weight, layer.bias, padding=padding)
    torch.testing.assert_close(layer(x), plain, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), plain, rtol=1e-5, atol=1e-5)
    grads = [torch.autograd.grad((out**2).sum(), [x, layer.weight, layer.bias]) for out in (layer(x), plain)]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-5), ("bf16", 0.02)])
def test_the_folded_gradient_is_that_of_conv3d(monkeypatch, padding, precision, tolerance):
    """On processors where oneDNN's own is slow, or in bf16 NaN from 64 pixels on."""
    monkeypatch.setattr(blocks, "_folds_gradient", lambda dtype: True)
    torch.manual_seed(0)
    layer, x = Conv3d(24, 24, 3, padding=padding), torch.rand(2, 24, 5, 66, 9, requires_grad=True)
    upstream = torch.rand(2, 24, 3 + 2 * padding, 64 + 2 * padding, 7 + 2 * padding)
    with autocast(torch.device("cpu"), precision):
        ours = layer(x)
    plain = F.conv3d(x, layer.weight, layer.bias, padding=padding)
    wanted = [x, layer.weight, layer.bias]
    for found, right in zip(torch.autograd.grad(ours.float(), wanted, upstream),
                            torch.autograd.grad(plain, wanted, upstream), strict=True):
        assert (found - right).norm() <= tolerance * right.norm()


@pytest.mark.parametrize("channels", [1, 8, 16, 24, 32])
@pytest.mark.parametrize("side", [16, 17, 18, 19, 24])
def test_convolutions_to_few_channels_are_right_in_bf16(channels, side):
    """With AMX, oneDNN is wrong for 8 to 24 channels at some sides."""
    torch.manual_seed(0)
    layer, x = Conv2dToFew(channels, 1, 5, padding=2), torch.rand(2, channels, side, side)
    plain = F.conv2d(x, layer.weight, layer.bias, padding=2)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
    assert (found.float() - plain).norm() <= 0.01 * plain.norm()


def test_operations_of_the_fixed_filters_are_those_of_their_sums():
    """However they are computed: the fixed filters, at each LR pixel of five frames and for four HR pixels of one."""
    height, width = 20, 30
    plain, ours = (count_flops(build(ModelSettings(**more)), 1, (height, width))
                   for more in ({}, {"skip": "wiener", "input": "deconvolved"}))
    taps = 2 * Enlarge("wiener", 2, 3.0, 1e-3).kernels[0].numel()
    assert ours - plain == taps * (5 * (height + 2) * (width + 2) + 4 * height * width)


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_convolution_to_few_channels_is_conv2d(padding, channels):
    torch.manual_seed(0)
    layer = Conv2dToFew(16, channels, 5, padding=padding)
    x = torch.rand(2, 16, 13, 18, requires_grad=True)
    plain = F.conv2d(x, layer.weight, layer.bias, padding=padding)
    torch.testing.assert_close(layer(x), plain, rtol=1e-5, atol=1e-5)
    grads = [torch.autograd.grad((out**2).sum(), [x, layer.weight, layer.bias]) for out in (layer(x), plain)]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["delta", "parallel5", "previous"])
@pytest.mark.parametrize("ours", [False, True], ids=["published", "ours"])
def test_tiles_give_the_whole_frame(name, ours):
    more = {"skip": "wiener", "input": "deconvolved"} if ours else {}
    torch.manual_seed(0)
    network = build(ModelSettings(name=name, n_2d=2, n_3d=2, **more), 1).eval()
    torch.nn.init.normal_(network.core.last.weight, std=0.1)
    lr = torch.rand(1, 1, 5, 70, 91)
    with torch.inference_mode():
        torch.testing.assert_close(network.upscale(lr, tile=33), network.upscale(lr, tile=0), rtol=1e-4, atol=1e-4)


def test_the_bicubic_filter_is_opencvs():
    lr = np.random.default_rng(0).uniform(0, 255, (20, 24)).astype(np.float32)
    for scale in (2, 3, 4):
        expected = cv2.resize(lr, (24 * scale, 20 * scale), interpolation=cv2.INTER_CUBIC)
        found = Enlarge("bicubic", scale)(torch.from_numpy(lr)[None, None])[0, 0]
        np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_ramp_stays_in_its_place_when_enlarged(scale):
    """A cubic of -0.75 bends a ramp by less than 0.05 LR pixels, the same to both sides of each LR pixel's centre."""
    ramp = torch.arange(24, dtype=torch.float32).expand(1, 1, 20, 24)
    for picture in (ramp, ramp.transpose(-1, -2)):
        found = Enlarge("bicubic", scale)(picture)[0, 0]
        found = (found if picture is ramp else found.T)[10 * scale].reshape(24, scale)[3:-3]
        places = (torch.arange(24 * scale).reshape(24, scale)[3:-3] + 0.5) / scale - 0.5
        torch.testing.assert_close(found, places, rtol=0, atol=0.05)
        torch.testing.assert_close(found + found.flip(1), 2 * ramp[0, 0, 0, 3:-3, None].expand(18, scale))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_wiener_restores_what_the_degradation_has_blurred(scale):
    hr = moving_pattern(1, 96, 120)[0, ..., 1]
    lr = torch.from_numpy(degrade(hr[None], Degradation(scale=scale))[None]).float()
    errors = [(Enlarge(kind, scale, 3.0, 1e-3)(lr)[0, 0] - torch.from_numpy(hr)).square().mean()
              for kind in ("wiener", "bicubic")]
    assert errors[0] < 0.4 * errors[1]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("noise", [1e-4, 1e-3, 1e-2])
def test_the_wiener_filter_is_the_fourier_transform_of_the_whole_frame(noise, scale):
    random = np.random.default_rng(0)
    side = 100 * scale
    lr = cv2.GaussianBlur(random.normal(size=(100, 100)), (0, 0), 3 / scale).astype(np.float32)
    large = cv2.resize(lr, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float64)
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    blur = np.exp(-2 * (np.pi * 3.0) ** 2 * (rows**2 + columns**2))
    expected = np.fft.irfft2(np.fft.rfft2(large) * blur / (blur**2 + noise) * (1 + noise), s=large.shape)
    found = Enlarge("wiener", scale, 3.0, noise)(torch.from_numpy(lr)[None, None])[0, 0].double().numpy()
    middle = slice(30 * scale, 70 * scale)  # away from the borders, where the transform wraps around
    error = np.abs(found - expected)[middle, middle].max() / np.abs(expected).max()
    assert error < (0.02 if noise == 1e-4 else 0.002)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("kind", ["bicubic", "wiener"])
def test_flat_areas_keep_their_value_when_enlarged(kind, scale):
    found = Enlarge(kind, scale, 3.0, 1e-3)(torch.full((1, 1, 12, 12), 0.7))
    torch.testing.assert_close(found, torch.full_like(found, 0.7), rtol=1e-4, atol=1e-4)


def test_training_starts_from_the_skip():
    network = build()
    lr = torch.rand(1, 1, 5, 20, 24)
    torch.testing.assert_close(network.upscale(lr), Enlarge("wiener", 2, 3.0, 1e-3)(lr[:, :, 2]), rtol=1e-4, atol=1e-4)


def test_a_patch_with_its_margin_gives_what_the_frame_gives_there():
    """The fixed filters see beyond a patch; what the core sees of its border differs only near it."""
    network = build()
    torch.nn.init.normal_(network.core.last.weight, std=0.05)
    frame = torch.rand(1, 1, 5, 150, 150)
    top, side, reach = 50, 40, network.reach
    whole = network.upscale(frame)[..., 2 * top + 2 : 2 * (top + side) - 2, 2 * top + 2 : 2 * (top + side) - 2]
    cut = slice(top - reach, top + side + reach)
    patch = network(frame[..., cut, cut])
    assert patch.shape == whole.shape
    inner = slice(30, -30)
    torch.testing.assert_close(patch[..., inner, inner], whole[..., inner, inner], rtol=1e-4, atol=1e-4)


def test_a_deep_network_sees_as_far_in_tiles_as_in_the_whole_frame():
    """Further than fits into the first image on which its reach is looked for."""
    network = build(ModelSettings(n_2d=16, n_3d=1, skip="none"))
    torch.nn.init.normal_(network.core.last.weight, std=0.05)
    frame = torch.rand(1, 1, 5, 12, 160)
    whole, tiled = network.upscale(frame, tile=0), network.upscale(frame, tile=24)
    assert network.core_reach > PROBE // 2
    torch.testing.assert_close(tiled, whole, rtol=1e-4, atol=1e-5)


def test_the_middle_frame_is_the_one_that_is_enlarged():
    network = build(ModelSettings(skip="bicubic", n_2d=1, n_3d=1))
    lr = torch.zeros(1, 1, 5, 12, 12)
    lr[:, :, 2] = 0.5
    assert network.upscale(lr).mean().item() == pytest.approx(0.5)


def test_every_layer_learns_at_the_first_steps():
    """No part is cut off from the gradient; the last layer first has to leave zero."""
    network = build(ModelSettings(skip="wiener", input="deconvolved"))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    margin = network.reach
    torch.manual_seed(1)
    lr, hr = torch.rand(2, 1, 5, 16 + 2 * margin, 16 + 2 * margin), torch.rand(2, 1, 28, 28)
    for _ in range(2):
        optimiser.zero_grad()
        (network(lr) - hr).square().mean().backward()
        optimiser.step()
    still = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert not still


@pytest.mark.parametrize(("scale", "fitting"), [(3, "use compact"), (4, "use flow4x or compact")])
def test_a_network_for_twice_the_size_refuses_other_data(scale, fitting):
    with pytest.raises(InputError, match=f"enlarges 2 times, the data set is for {scale} times.*{fitting}"):
        build_model(ModelSettings(), 1, scale, 3.0, 1e-3)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("sigma", [0.0, 1.2, 3.0])
def test_reducing_is_the_degradation(scale, sigma):
    hr = np.random.default_rng(0).normal(size=(1, 72, 96)).astype(np.float32)
    expected = degrade(hr, Degradation("BD" if sigma else "BI", sigma or 1.0, scale))
    found = Reduce(scale, sigma)(torch.from_numpy(hr)[None])[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_back_projection_brings_the_result_nearer_to_lr(scale):
    smooth = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(72, 96)), (0, 0), 2.0)
    reduce, enlarge = Reduce(scale, 3.0), Enlarge("bicubic", scale)
    lr = reduce(torch.from_numpy(smooth).float()[None, None])
    results = [back_project(enlarge(lr), lr, reduce, enlarge, num_times) for num_times in (0, 1, 4)]
    errors = [(reduce(result) - lr).square().mean() for result in results]
    assert errors[2] < errors[1] < errors[0]
