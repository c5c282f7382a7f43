from __future__ import annotations

import pytest

from hpc_vsr.data.splits import REACH, SplitFractions, piece_around, plan_shards, split_frames
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


def test_no_shard_crosses_a_gap_and_every_window_between_gaps_is_used():
    breaks = [7, 50, 53, 54, 240, 250]      # pieces of 7, 43, 3, 1, 156 (cut by the splits), 10 and 50 frames
    splits = split_frames(300, SplitFractions())
    plans = plan_shards(splits, 4, breaks)
    centres = [(plan.split, centre) for plan in plans for centre in range(plan.start + REACH, plan.stop - REACH)]
    whole = [(split, centre) for split, (start, stop) in splits.items() for centre in range(start + 2, stop - 2)
             if not any(centre - 2 < index <= centre + 2 for index in breaks)]
    assert centres == whole
    assert len(plans) == 3 + 1 + 2          # more than 4: each piece that holds a window has its own shard
    names = [plan.name for plan in plans]
    assert names[:4] == [f"train-{index:05d}-of-00003.h5" for index in range(3)] + ["val-00000-of-00001.h5"]


def test_a_split_that_gaps_leave_without_a_window_is_refused():
    splits = split_frames(100, SplitFractions())
    with pytest.raises(InputError, match="no 5 consecutive frames without a gap for val"):
        plan_shards(splits, 4, range(71, 81, 3))


def test_the_piece_around_a_frame():
    breaks = [10, 12, 13]
    assert [piece_around(frame, 20, breaks) for frame in (0, 9, 10, 11, 12, 13, 19)] == [
        (0, 10), (0, 10), (10, 12), (10, 12), (12, 13), (13, 20), (13, 20)]
    assert piece_around(5, 20, ()) == (0, 20)
