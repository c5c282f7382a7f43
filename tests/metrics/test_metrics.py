"""Metrics against scikit-image and against a computation written out here."""

from __future__ import annotations

import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.evaluation.scores import HrFlow, Scores
from hpc_vsr.metrics.image import list_profiles, luma, measure, temporal_error
from hpc_vsr.system.errors import InputError


@pytest.fixture(scope="module")
def pair():
    random = np.random.default_rng(1)
    smooth = cv2.GaussianBlur(random.normal(size=(60, 70)), (0, 0), 2) * 400 + 128
    hr = np.clip(np.rint(smooth), 0, 255).astype(np.float32)[None]
    return (hr + random.normal(size=hr.shape) * 6).astype(np.float32), hr


def ssim_by_windows(a, b, weights, unbiased, data_range):
    """SSIM written out: every window on its own, float64."""
    side = len(weights)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for row in range(a.shape[0] - side + 1):
        for column in range(a.shape[1] - side + 1):
            x, y = (plane[row : row + side, column : column + side] for plane in (a, b))
            mx, my = (weights * x).sum(), (weights * y).sum()
            factor = side * side / (side * side - 1) if unbiased else 1
            vx, vy = factor * (weights * (x - mx) ** 2).sum(), factor * (weights * (y - my) ** 2).sum()
            cov = factor * (weights * (x - mx) * (y - my)).sum()
            values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return np.mean(values)


def test_paper_is_the_reports_protocol(pair):
    sr, hr = pair
    found = measure("paper", sr, hr, 2, True)
    a, b = (np.clip(np.rint(frame[0].astype(float)), 0, 255)[2:-2, 2:-2] for frame in (sr, hr))
    assert found["mse"] == pytest.approx(np.mean((a - b) ** 2), rel=1e-9)
    assert found["psnr"] == pytest.approx(20 * math.log10(255) - 10 * math.log10(np.mean((a - b) ** 2)), rel=1e-9)
    assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(b.astype(np.uint8), a.astype(np.uint8)), rel=1e-9)
    assert found["ssim"] == pytest.approx(structural_similarity(a.astype(np.uint8), b.astype(np.uint8)), rel=1e-9)
    by_hand = ssim_by_windows(a.astype(float), b.astype(float), np.full((7, 7), 1 / 49), True, 255)
    assert found["ssim"] == pytest.approx(by_hand, rel=1e-9)


def test_sr_is_the_literatures_protocol(pair):
    sr, hr = pair
    found = measure("sr", sr, hr, 2, True)
    a, b = (16 + np.clip(np.rint(frame[0]), 0, 255)[2:-2, 2:-2].astype(float) * 219 / 255 for frame in (sr, hr))
    assert found["mse"] == pytest.approx(np.mean((a - b) ** 2), rel=1e-9)
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    assert found["ssim"] == pytest.approx(ssim_by_windows(a, b, window, False, 255), rel=1e-9)


def test_studio_range_adds_132_hundredths_of_a_decibel(pair):
    difference = measure("sr", *pair, 2, True)["psnr"] - measure("paper", *pair, 2, True)["psnr"]
    assert difference == pytest.approx(20 * math.log10(255 / 219), abs=1e-9) and round(difference, 2) == 1.32


def test_a_field_is_not_rounded(pair):
    sr, hr = (frame / 255 for frame in pair)
    found = measure("paper", sr, hr, 2, False)
    error = np.mean((sr[0, 2:-2, 2:-2].astype(float) - hr[0, 2:-2, 2:-2]) ** 2)
    assert found["mse"] == pytest.approx(error, rel=1e-6)
    assert found["psnr"] == pytest.approx(-10 * math.log10(error), rel=1e-6)
    assert list_profiles(False, True) == ["paper", "field"] and list_profiles(True, False) == ["paper", "sr"]
    assert list_profiles(False, False) == ["paper"]


def test_grey_levels_of_more_than_8_bits_are_not_rounded(pair):
    sr, hr = (frame * np.float32(1.01) + np.float32(0.3) for frame in pair)
    a, b = (np.clip(frame[0].astype(float), 0, 255)[2:-2, 2:-2] for frame in (sr, hr))
    error = np.mean((a - b) ** 2)
    found = measure("paper", sr, hr, 2, True, is_8bit=False)
    assert found["mse"] == pytest.approx(error, rel=1e-6)
    assert found["psnr"] == pytest.approx(10 * math.log10(255**2 / error), rel=1e-6)
    assert found["ssim"] == pytest.approx(structural_similarity(a, b, data_range=255), rel=1e-6)
    assert measure("sr", sr, hr, 2, True, is_8bit=False)["mse"] == pytest.approx(error * (219 / 255) ** 2, rel=1e-6)
    assert measure("paper", sr, hr, 2, True)["mse"] != pytest.approx(error, rel=1e-4)
    rgb = np.random.default_rng(2).uniform(0, 255, (3, 30, 30)).astype(np.float32)
    np.testing.assert_allclose(luma("paper", rgb, False), 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2], rtol=1e-6)


def test_rgb_is_measured_on_luma():
    rgb = np.random.default_rng(2).integers(0, 256, (3, 30, 30)).astype(np.float32)
    expected = cv2.cvtColor(rgb.transpose(1, 2, 0).astype(np.uint8), cv2.COLOR_RGB2YCrCb)[..., 0]
    np.testing.assert_array_equal(luma("paper", rgb), expected)
    studio = 16 + (65.481 * rgb[0] + 128.553 * rgb[1] + 24.966 * rgb[2]) / 255
    np.testing.assert_allclose(luma("sr", rgb), studio, atol=1e-3)


def test_equal_frames_have_infinite_psnr(pair):
    found = measure("paper", pair[1], pair[1], 2, True)
    assert (found["mse"], found["psnr"], found["ssim"]) == (0, math.inf, 1)


def test_temporal_errors_see_flicker_that_psnr_does_not():
    random = np.random.default_rng(3)
    scene = np.clip(cv2.GaussianBlur(random.normal(size=(80, 90)), (0, 0), 2) * 300 + 128, 20, 235)
    hr = (np.rint(scene[:, 5:85]).astype(np.uint8), np.rint(scene[:, 7:87]).astype(np.uint8))
    level = np.uint8(8)
    steady, flicker, reversed_time = (hr[0] + level, hr[1] + level), (hr[0] + level, hr[1] - level), (hr[1], hr[0])
    assert temporal_error(hr, hr)["tof"] == 0
    assert temporal_error(flicker, hr)["warp_error"] > 3 * temporal_error(steady, hr)["warp_error"]
    assert temporal_error(reversed_time, hr)["tof"] > 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_method_that_made_values_that_are_not_finite_is_not_measured(dataset, value):
    manifest = read_manifest(dataset)
    height, width = manifest.hr_size
    hr = np.full((1, height, width), 100, np.float32)
    scores = Scores(SimpleNamespace(name="broken", fits_hr=False, flops=0), manifest)
    scores.add(hr, hr, hr[:, ::2, ::2], HrFlow())
    broken = hr.copy()
    broken[0, 3, 3] = value
    with pytest.raises(InputError, match="broken: made values that are not finite in the frame after 1"):
        scores.add(broken, hr, hr[:, ::2, ::2], HrFlow())
    assert scores.num_frames == 1
