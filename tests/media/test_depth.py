"""The significant bits of 16-bit images, and their white."""

from __future__ import annotations

import numpy as np
import pytest

from hpc_vsr.media.depth import Depth, Seen, full_depth


def depth_of(*values) -> Depth:
    return Seen().with_values(np.array(values, np.uint16)).depth


@pytest.mark.parametrize(("values", "bits", "white"), [
    ((0, 200), 8, 255), ((3, 700), 10, 1023), ((1, 4095), 12, 4095), ((1, 4096), 14, 16383), ((0, 16384), 16, 65535),
    ((1, 65535), 16, 65535), ((0, 0), 16, 65535),
    ((16, 4000 << 4), 12, 4095 << 4),  # the bits were moved to the top
    ((64, 1000 << 6), 10, 1023 << 6), ((256, 200 << 8), 8, 255 << 8),
    ((8, 47600), 16, 65535),  # three low bits without a value: of no camera
    ((1 << 12, 9 << 12), 16, 65535),
])
def test_bits_are_found(values, bits, white):
    assert depth_of(*values) == Depth(bits, white)


def test_white_is_255_exactly():
    for bits in (8, 10, 12, 14, 16):
        depth = full_depth(bits)
        assert depth.to_grey(np.array([0, depth.white], np.uint16)).tolist() == [0, 255]
    assert full_depth(12).to_grey(np.array([819], np.uint16))[0] == np.float32(51)  # a fifth of 4095


def test_it_knows_when_no_further_image_can_matter():
    seen = Seen()
    for values, settled in (([4, 40000], False), ([0, 8], False), ([2], True)):
        seen = seen.with_values(np.array(values, np.uint16))
        assert seen.is_settled is settled
    assert seen.depth == full_depth(16)
