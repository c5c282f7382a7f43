"""Samples of many clips: splits by clip, and patches of clips whose sizes differ."""

from __future__ import annotations

import collections

import h5py
import numpy as np
import pytest
import torch

from hpc_vsr.data.clips import Clips
from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.patches import Patches
from hpc_vsr.data.split_clips import split_clips
from hpc_vsr.data.splits import SplitFractions
from hpc_vsr.system.errors import InputError

CPU = torch.device("cpu")
SHARES = SplitFractions(by="clip")


def test_ten_equal_clips_are_split_seven_one_two():
    chosen = split_clips({f"clip {number}": 30 for number in range(10)}, SHARES, {})
    assert collections.Counter(chosen.values()) == {"train": 7, "val": 1, "test": 2}


def test_each_split_has_a_clip_whatever_their_lengths():
    for lengths in ([100, 1, 1], [1, 1, 100], [5, 5, 5], [1, 1, 1, 1000]):
        chosen = split_clips({str(number): length for number, length in enumerate(lengths)}, SHARES, {})
        assert set(chosen.values()) == {"train", "val", "test"}


def test_clips_that_are_added_leave_the_others_in_their_splits():
    first = split_clips({f"{number:02d}": 30 for number in range(0, 40, 2)}, SHARES, {})
    both = split_clips({f"{number:02d}": 30 for number in range(40)}, SHARES, first)
    assert both.items() >= first.items()
    assert collections.Counter(both.values()) == {"train": 28, "val": 4, "test": 8}


def test_too_few_clips_for_three_splits_are_refused():
    with pytest.raises(InputError, match="2 clips cannot fill train, val, test"):
        split_clips({"a": 9, "b": 9}, SHARES, {})
    with pytest.raises(InputError, match="cannot fill"):
        split_clips({"a": 9, "b": 9, "c": 9}, SHARES, {"a": "train", "b": "train", "c": "train"})


@pytest.mark.parametrize("augment", [False, True])
def test_a_batch_of_clips_of_different_sizes_has_the_patches_to_the_bit(collection, augment):
    manifest = read_manifest(collection)
    kept, read = Clips(manifest, "train", CPU), Clips(manifest, "train")
    for size, margin in ((12, 3), (20, 0)):
        batches, alone = Patches(kept, size, margin, augment, 5), Patches(read, size, margin, augment, 5)
        batch, patches = batches.batch(range(24)), [alone[position] for position in range(24)]
        for values, expected in zip(batch, zip(*patches, strict=True), strict=True):
            assert torch.equal(values, torch.stack(expected))


def test_an_epoch_shows_each_sample_of_each_clip_once_and_cuts_it_from_that_clip(collection):
    manifest = read_manifest(collection)
    clips = Clips(manifest, "train", CPU)
    patches = Patches(clips, 12, 0, False, seed=3)
    shown = [patches.place(position) for position in range(len(clips))]
    wanted = {(number, centre) for number, clip in enumerate(manifest.clips) for shard in clip.shards("train")
              for centre in range(shard.first_frame + 2, shard.stop_frame - 2)}
    assert len(shown) == len(wanted) and {(place.clip, place.centre) for place in shown} == wanted
    for position in range(0, len(clips), 7):
        place = shown[position]
        clip = manifest.clips[place.clip]
        entry = next(one for one in clip.shards("train")
                     if one.first_frame + 2 <= place.centre < one.stop_frame - 2)
        with h5py.File(clip.folder / entry.name) as file:
            window = file["lr"][place.centre - 2 - entry.first_frame]
        part = window[:, :, place.top : place.top + 12, place.left : place.left + 12].transpose(1, 0, 2, 3)
        np.testing.assert_allclose(patches[position].lr.numpy() * 255, part, atol=1e-4)
