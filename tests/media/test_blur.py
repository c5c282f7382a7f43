"""The blur of a reduced clip is measured in pixels of the larger one."""

from __future__ import annotations

import numpy as np
import pytest
from repository import SAMPLE

from hpc_vsr.data.blurred import degradation_of
from hpc_vsr.data.degrade import crop_to_multiple, degrade
from hpc_vsr.media.blur import before_reduction, measure_blur
from hpc_vsr.media.video_source import open_video


@pytest.fixture(scope="module")
def sharp():
    """Four frames of the bundled clip, (1, 300, 450)."""
    source = open_video(SAMPLE)
    return [frame for number in (0, 30, 60, 90) for frame, _ in source.read(number, number + 1)]


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0, 4.0])
def test_it_is_found_within_a_quarter_of_a_pixel(sharp, scale, sigma):
    lr = [degrade(np.ascontiguousarray(crop_to_multiple(frame, scale)), degradation_of(sigma, scale))[0]
          for frame in sharp]
    assert abs(before_reduction(measure_blur(lr), scale) - sigma) < 0.25
