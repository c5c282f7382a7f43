"""The white noise of frames is measured, whatever they show."""

from __future__ import annotations

import numpy as np
import pytest
from repository import SAMPLE

from hpc_vsr.data.blurred import degradation_of
from hpc_vsr.data.degrade import degrade
from hpc_vsr.media.noise import measure_noise
from hpc_vsr.media.video_source import open_video


@pytest.fixture(scope="module")
def sharp():
    """Four frames of the bundled clip, (1, 300, 450)."""
    source = open_video(SAMPLE)
    return [frame for number in (0, 30, 60, 90) for frame, _ in source.read(number, number + 1)]


@pytest.mark.parametrize("sigma", [0.0, 1.5, 3.0])
@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0, 2.0, 4.0])
def test_it_is_found_in_reduced_frames(sharp, sigma, noise):
    random = np.random.default_rng(0)
    lr = [degrade(np.ascontiguousarray(frame), degradation_of(sigma, 2))[0].astype(float) for frame in sharp]
    found = measure_noise(np.clip(np.round(frame + noise * random.standard_normal(frame.shape)), 0, 255)
                          for frame in lr)
    assert abs(found - noise) < 0.1 + 0.05 * noise


def test_frames_that_show_nothing_are_not_measured():
    assert measure_noise([]) is None
    assert measure_noise([np.zeros((64, 64))]) is None  # black cuts off the noise
    assert measure_noise([np.full((5, 64), 100.0)]) is None
    assert measure_noise([np.full((64, 64), 100.0)]) == 0
