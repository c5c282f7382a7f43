"""One set of weights with the fixed filters of several blurs."""

from __future__ import annotations

import pytest
import torch

from hpc_vsr.models.blurs import BLUR, CAMERA_NOISE, Blurs, parse_levels
from hpc_vsr.models.build import build_model
from hpc_vsr.models.filters import FilterBank
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.system.errors import InputError

pytestmark = pytest.mark.compute
SETTINGS = ModelSettings(name="compact", width=8, blocks=1, skip="wiener", input="deconvolved")
SIGMAS, NOISES = [0.0, 1.2, 3.0], [1e-1, 1e-3, 2e-4]


def build(sigma, noise):
    torch.manual_seed(0)
    network = build_model(SETTINGS, 1, 2, sigma, noise).eval()
    torch.nn.init.normal_(network.core.last.weight, std=0.1)
    return network


@pytest.mark.parametrize("text, sigmas", [("0..4", (0, 4)), ("0.5..4", (0.5, 4)), ("0.1..3.3", (0.1, 3.3)),
                                          (" 0.5 .. 2.0 ", (0.5, 2))])
def test_a_range_has_blurs_at_equal_distances(text, sigmas):
    found = parse_levels(text, BLUR, "train.sigma")
    assert (len(found), found[0], found[-1]) == (BLUR.num_levels, *sigmas)
    steps = [two - one for one, two in zip(found, found[1:], strict=False)]
    assert steps == pytest.approx([(sigmas[1] - sigmas[0]) / (BLUR.num_levels - 1)] * (BLUR.num_levels - 1))


@pytest.mark.parametrize("text", ["3", "4..2", "1..1", "-1..2", "0..11", "nan..4", "0..inf", "a..b", "1..2..3", ".. 4"])
def test_what_is_no_range_is_refused_by_name(text):
    with pytest.raises(InputError, match=r"train\.sigma: expected LOW\.\.HIGH .* found"):
        parse_levels(text, BLUR, "train.sigma")


def test_noise_between_two_blurs_is_interpolated():
    blurs = Blurs([0.0, 1.0, 3.0], [1e-1, 1e-3, 1e-5])
    found = [blurs.noise_of(sigma) for sigma in (0.0, 0.5, 1.0, 2.0, 3.0)]
    assert found == pytest.approx([1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
    assert Blurs([0.0, 1.0], [0.0, 0.0]).noise_of(0.3) == 0


def test_noise_of_the_camera_is_interpolated_too():
    assert parse_levels("0..3", CAMERA_NOISE, "train.noise") == [0, 1, 2, 3]
    blurs = Blurs([1.0, 3.0], [1e-4, 1e-2, 1e-6, 1e-3], [0.0, 4.0])
    assert blurs.filters == [(1.0, 1e-4), (1.0, 1e-2), (3.0, 1e-6), (3.0, 1e-3)]
    found = [blurs.noise_of(*one) for one in ((1.0, 0.0), (1.0, 4.0), (1.0, 2.0), (2.0, 0.0), (2.0, 2.0), (5.0, 9.0))]
    assert found == pytest.approx([1e-4, 1e-2, 1e-3, 1e-5, 10**-3.75, 1e-3])
    one = Blurs([2.0], [1e-4, 1e-2], [0.0, 4.0])  # of one blur
    assert one.noise_of(2.0, 2.0) == pytest.approx(1e-3)


@pytest.mark.parametrize("wrong", [([1.0], [1e-3]), ([2.0, 1.0], [1e-3, 1e-3]), ([1.0, 2.0], [1e-3]),
                                   ([1.0, 2.0], [1e-3, float("nan")]), ([1.0, 20.0], [1e-3, 1e-3]),
                                   ([1.0], [1e-3, 1e-3], [4.0, 0.0]), ([1.0], [1e-3, 1e-3], [0.0, 30.0]),
                                   ([1.0, 2.0], [1e-3, 1e-3], [0.0, 4.0])])
def test_blurs_of_a_damaged_checkpoint_are_refused(wrong):
    with pytest.raises(InputError, match="data_terms.blurs"):
        Blurs(*wrong)


@pytest.mark.parametrize("side", [20, 60])
def test_with_the_filters_of_a_blur_it_computes_what_a_network_for_this_blur_does(side):
    """The filters of a bank are all as wide as the widest one; that changes only the rounding."""
    network = build(2.0, 5e-4)
    own, window = build(2.0, 5e-4), torch.rand(1, 1, 5, side, side)
    bank = FilterBank(network, list(zip(SIGMAS, NOISES, strict=True)))
    with torch.inference_mode():
        torch.testing.assert_close(network.upscale(window), own.upscale(window), rtol=0, atol=2e-5)
        for level in (1, 0, 2, 1):  # and again, from the spectra that were kept
            bank.choose(level)
            expected = build(SIGMAS[level], NOISES[level]).upscale(window)
            torch.testing.assert_close(network.upscale(window), expected, rtol=0, atol=2e-5)


def test_the_reach_is_that_of_the_widest_blur():
    network = build(1.2, 1e-3)
    FilterBank(network, list(zip(SIGMAS, NOISES, strict=True)))
    assert network.reach == build(3.0, 2e-4).reach
