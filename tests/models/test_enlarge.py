"""The Wiener filter is one convolution; here it is compared with a Fourier transform of the whole frame, in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hpc_vsr.models.build import build_model
from hpc_vsr.models.enlarge import LEAST_FOR_FFT, Enlarge
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.runs.state import load_weights
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.memory import peak_of_tensors

pytestmark = pytest.mark.compute
SIDE = 240  # HR pixels, a multiple of every scale; the picture goes on at the other side, as for the transform


@pytest.fixture(scope="module")
def smooth():
    """Return (SIDE, SIDE) random values in 0..1 whose amplitudes fall with f^1.7, between a photograph and a field."""
    rows, columns = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(np.random.default_rng(0).normal(size=(SIDE, SIDE))) / frequency**1.7
    picture = np.fft.irfft2(spectrum, s=(SIDE, SIDE))
    return (picture - picture.min()) / np.ptp(picture)


def blur_response(sigma):
    """Return what a Gaussian blur of pixels multiplies the spectrum with: the transform of the sampled Gaussian."""
    pixels = np.minimum(np.arange(SIDE), SIDE - np.arange(SIDE))
    response = np.fft.fft(np.exp(-((pixels / sigma) ** 2) / 2)).real
    response /= response[0]
    return response[:, None] * response[None, : SIDE // 2 + 1]


def reduce(picture, sigma, scale):
    """Blur, then take the values at the centres of the LR pixels, both by Fourier transform."""
    rows, columns = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]
    to_centre = np.exp(1j * np.pi * (rows + columns) * (scale - 1))
    spectrum = np.fft.rfft2(picture) * blur_response(sigma) * to_centre
    return np.fft.irfft2(spectrum, s=picture.shape)[::scale, ::scale]


def enlarge(filters, lr):
    """Enlarge a picture that goes on at the other side."""
    extended = F.pad(torch.from_numpy(lr)[None, None], (filters.reach,) * 4, mode="circular")
    return filters.inner(extended)[0, 0].double().numpy()


def psnr(picture, reference):
    return -10 * np.log10(np.square(picture - reference).mean())


@pytest.mark.parametrize("sigma, scale", [(1.0, 2), (2.0, 4), (3.0, 2), (3.0, 3), (4.0, 4)])
def test_the_wiener_filter_loses_less_than_002_db_to_a_fourier_transform(smooth, sigma, scale):
    """However little the noise is; `-s` prints the losses."""
    lr = reduce(smooth, sigma, scale)
    large, blur = enlarge(Enlarge("bicubic", scale).double(), lr), blur_response(sigma)
    losses = {}
    for noise in (1e-6, 3e-6, 1e-5, 1e-4, 1.5e-4, 3e-4, 1e-3, 1e-2):
        transform = np.fft.irfft2(np.fft.rfft2(large) * blur / (blur**2 + noise) * (1 + noise), s=large.shape)
        found = enlarge(Enlarge("wiener", scale, sigma, noise), lr)
        losses[noise] = psnr(transform, smooth) - psnr(found, smooth)
    print(f"\nsigma {sigma:g}, {scale} times:", *(f"{noise:g} {loss:.4f} dB," for noise, loss in losses.items()))
    assert max(losses.values()) < 0.02


@pytest.mark.parametrize("noise, sigmas", [(1e-2, 16), (1e-3, 16), (5e-4, 16), (2e-4, 18), (1e-4, 20), (1.3e-5, 24)])
def test_the_wiener_filter_is_no_longer_than_its_noise_needs(noise, sigmas):
    """Its length decides the time of a network."""
    assert Enlarge("wiener", 2, 3.0, noise).reach == 2 + math.ceil(sigmas * 3 / 2)


@pytest.mark.parametrize("skip, plain", [("wiener", "deconvolved"), ("wiener", "plain"), ("none", "deconvolved")])
def test_a_trained_network_keeps_the_filters_that_it_was_trained_with(skip, plain):
    """Whatever length the filters have today."""
    settings = ModelSettings("compact", skip, plain, width=4, blocks=1)
    trained = build_model(settings, 1, 2, 1.0, 1e-2).eval()
    torch.nn.init.normal_(trained.core.last.weight, std=0.1)
    network = build_model(settings, 1, 2, 3.0, 1e-4).eval()
    assert network.reach > trained.reach
    load_weights(network, trained.state_dict(), "x")
    lr = torch.rand(1, 1, 5, 12, 15, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(network.upscale(lr), trained.upscale(lr), rtol=0, atol=0)
    load_weights(trained, build_model(settings, 1, 2, 3.0, 1e-4).state_dict(), "x")


@pytest.mark.parametrize("shape", [(4, 1, 12, 12), (4, 1, 13, 11), (9, 1, 13, 13), (4, 13, 13)])
def test_filters_of_another_kind_are_refused(shape):
    network = build_model(ModelSettings("compact", "wiener"), 1, 2, 1.0, 1e-2)
    with pytest.raises(InputError, match="skip.kernels is "):
        load_weights(network, {**network.state_dict(), "skip.kernels": torch.zeros(shape)}, "x")


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_without_a_blur_the_wiener_filter_is_bicubic_enlargement(sigma, scale):
    lr = torch.rand(1, 1, 16, 20)
    torch.testing.assert_close(Enlarge("wiener", scale, sigma, 1e-3)(lr), Enlarge("bicubic", scale)(lr))


@pytest.mark.parametrize("size", [(60, 77), (149, 211)])
@pytest.mark.parametrize("sigma, scale", [(1.6, 3), (3.0, 2), (3.0, 4)])
def test_by_way_of_the_frequencies_it_is_the_correlation(sigma, scale, size):
    filters = Enlarge("wiener", scale, sigma)
    assert filters.kernels.shape[-1] >= LEAST_FOR_FFT
    lr = torch.rand(3, 2, *(side + 2 * filters.reach for side in size))
    phases = F.conv2d(lr.double().flatten(0, 1)[:, None], filters.kernels.double()).unflatten(0, (3, 2))
    found = filters.inner(lr)
    torch.testing.assert_close(found.double(), F.pixel_shuffle(phases, scale)[:, :, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(filters.at_lr_size(lr).double(), phases.mean(2), rtol=0, atol=1e-5)
    for index in range(3):  # a frame of a batch is the frame alone, to the bit
        assert torch.equal(filters.inner(lr[index : index + 1])[0], found[index])


def test_other_kernels_are_not_taken_for_those_before():
    filters, other = Enlarge("wiener", 2, 3.0, 1e-2), Enlarge("wiener", 2, 3.0, 1e-3)
    lr = torch.rand(1, 1, 40, 50)
    expected = other(lr)
    assert not torch.allclose(filters(lr), expected)
    filters.load_state_dict({"kernels": other.kernels})
    assert torch.equal(filters(lr), expected)
    assert filters.double()(lr.double()).dtype == torch.float64
    torch.testing.assert_close(filters(lr.double()).float(), expected, rtol=0, atol=1e-5)


def test_memory_is_estimated_without_leaving_spectra_without_values():
    filters = Enlarge("wiener", 2, 3.0)
    assert peak_of_tensors(lambda: filters(torch.empty(1, 1, 40, 50))) > 0
    assert filters(torch.rand(1, 1, 40, 50)).isfinite().all()


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_each_channel_may_have_a_filter_of_its_own(sigma):
    """Of different lengths, by way of the frequencies and without."""
    noises = [1e-1, 1e-5]
    together, alone = Enlarge("wiener", 2, sigma, noises), [Enlarge("wiener", 2, sigma, noise) for noise in noises]
    assert together.kernels.shape[0] == 8 and together.reach == max(one.reach for one in alone)
    assert alone[0].reach < alone[1].reach
    lr = torch.rand(3, 2, 40, 50)
    for _ in range(2):  # the second time with what the first one has kept
        found = together(lr)
        for channel, one in enumerate(alone):
            torch.testing.assert_close(found[:, channel], one(lr[:, channel : channel + 1])[:, 0], rtol=0, atol=2e-4)
    wide = torch.rand(3, 2, 130, 140)
    cut = together.reach - alone[0].reach
    inner = wide[:, :1, cut : 130 - cut, cut : 140 - cut]
    torch.testing.assert_close(together.at_lr_size(wide)[:, :1], alone[0].at_lr_size(inner), rtol=0, atol=2e-4)
