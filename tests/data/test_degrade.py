from __future__ import annotations

import cv2
import numpy as np
import pytest

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.degrade import blur, crop_to_multiple, degrade
from hpc_vsr.system.errors import InputError


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_it_is_opencvs_blur_and_cubic_reduction(scale, dtype):
    hr = np.random.default_rng(0).integers(0, 256, (3, 40, 48)).astype(dtype)
    expected = [cv2.resize(cv2.GaussianBlur(plane, (0, 0), 3.0), (48 // scale, 40 // scale),
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


def test_bicubic_alone_does_not_blur():
    hr = np.random.default_rng(0).integers(0, 256, (1, 40, 48), dtype=np.uint8)
    expected = cv2.resize(hr[0], (24, 20), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(degrade(hr, Degradation(kind="BI"))[0], expected)


def test_frames_are_cut_to_whole_lr_pixels():
    assert crop_to_multiple(np.zeros((1, 405, 722)), 4).shape == (1, 404, 720)


def test_a_blur_of_no_width_is_refused():
    with pytest.raises(InputError, match='set degradation.kind to "BI"'):
        Degradation(sigma=0)
