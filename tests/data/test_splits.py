from __future__ import annotations

import pytest

from hpc_vsr.data.splits import REACH, SplitFractions, plan_shards, split_frames
from hpc_vsr.system.errors import InputError


@pytest.mark.parametrize("num_frames", [15, 16, 40, 109, 300, 12345])
def test_splits_are_contiguous_and_share_no_frame(num_frames):
    splits = split_frames(num_frames, SplitFractions())
    assert [splits["train"][0], splits["test"][1]] == [0, num_frames]
    assert splits["train"][1] == splits["val"][0] and splits["val"][1] == splits["test"][0]
    assert min(stop - start for start, stop in splits.values()) >= 5


def test_the_default_of_300_frames_is_70_10_20():
    assert split_frames(300, SplitFractions()) == {"train": (0, 210), "val": (210, 240), "test": (240, 300)}


@pytest.mark.parametrize("num_frames, num_shards", [(15, 3), (40, 5), (300, 16), (300, 288), (1000, 7)])
def test_shards_cover_every_sample_once(num_frames, num_shards):
    splits = split_frames(num_frames, SplitFractions())
    plans = plan_shards(splits, num_shards)
    assert len(plans) == num_shards
    for split, (start, stop) in splits.items():
        mine = [plan for plan in plans if plan.split == split]
        centres = [centre for plan in mine for centre in range(plan.start + REACH, plan.stop - REACH)]
        assert centres == list(range(start + REACH, stop - REACH))
        assert all(plan.name == f"{split}-{index:05d}-of-{len(mine):05d}.h5" for index, plan in enumerate(mine))


def test_too_many_or_too_few_shards_are_refused():
    splits = split_frames(40, SplitFractions())
    with pytest.raises(InputError, match="at most 28"):
        plan_shards(splits, 29)
    with pytest.raises(InputError, match="at least 3"):
        plan_shards(splits, 2)


def test_a_video_shorter_than_three_windows_is_refused():
    with pytest.raises(InputError, match="has 14 frames"):
        split_frames(14, SplitFractions())


def test_fractions_must_add_up():
    with pytest.raises(InputError, match="add up to 1"):
        SplitFractions(0.7, 0.2, 0.2)
