from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.degrade import blur, crop_to_multiple, degrade
from hpc_vsr.system.errors import InputError


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_it_is_opencvs_blur_and_cubic_reduction(scale, dtype):
    hr = np.random.default_rng(0).integers(0, 256, (3, 48, 60)).astype(dtype)
    expected = [cv2.resize(cv2.GaussianBlur(plane, (0, 0), 3.0), (60 // scale, 48 // scale),
                           interpolation=cv2.INTER_CUBIC) for plane in hr]
    lr = degrade(hr, Degradation(scale=scale))
    assert lr.dtype == dtype
    np.testing.assert_array_equal(lr, expected)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.7, 3.0, 6.0, 10.0])
def test_the_quick_blur_is_opencvs_to_the_bit(sigma):
    random = np.random.default_rng(0)
    for plane in (random.integers(0, 256, (70, 451), dtype=np.uint8), random.integers(0, 2, (300, 80), np.uint8) * 255,
                  np.full((40, 40), 255, np.uint8), np.tile(np.arange(256, dtype=np.uint8), (30, 1))):
        np.testing.assert_array_equal(blur(plane, sigma), cv2.GaussianBlur(plane, (0, 0), sigma))


def test_the_blur_is_a_gaussian_of_that_width():
    impulse = np.zeros((1, 128, 128), np.float32)
    impulse[0, 64, 64] = 1
    lr = degrade(impulse, Degradation(sigma=4.0))[0].astype(float)
    rows = (np.arange(64) * 2 + 0.5 - 64) ** 2
    variance = (lr.sum(1) * rows).sum() / lr.sum()
    assert lr.sum() * 4 == pytest.approx(1, rel=1e-3)
    assert variance == pytest.approx(16, rel=0.05)


def test_at_three_times_the_middle_of_each_lr_pixel_is_kept():
    """Cubic interpolation at a pixel's own place is that pixel; OpenCV does not widen it."""
    hr = np.random.default_rng(0).normal(size=(48, 60)).astype(np.float32)
    blurred = gaussian_filter(hr.astype(np.float64), 3.0, truncate=4, mode="mirror")
    np.testing.assert_allclose(degrade(hr[None], Degradation(scale=3))[0], blurred[1::3, 1::3], atol=1e-6)
    grey = np.random.default_rng(0).integers(0, 256, (48, 60), dtype=np.uint8)
    np.testing.assert_array_equal(degrade(grey[None], Degradation("BI", scale=3))[0], grey[1::3, 1::3])


def test_bicubic_alone_does_not_blur():
    hr = np.random.default_rng(0).integers(0, 256, (1, 40, 48), dtype=np.uint8)
    expected = cv2.resize(hr[0], (24, 20), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(degrade(hr, Degradation(kind="BI"))[0], expected)


def test_frames_are_cut_to_whole_lr_pixels():
    assert crop_to_multiple(np.zeros((1, 405, 722)), 4).shape == (1, 404, 720)
    assert crop_to_multiple(np.zeros((1, 406, 722)), 3).shape == (1, 405, 720)


def test_a_blur_of_no_width_is_refused():
    with pytest.raises(InputError, match='set degradation.kind to "BI"'):
        Degradation(sigma=0)
