"""Noise of a camera on the LR frames of patches."""

from __future__ import annotations

import pytest
import torch

from hpc_vsr.data.blurred import BlurredSplit
from hpc_vsr.data.clips import Clips
from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.noise import add_noise
from hpc_vsr.data.patches import Patches, load_batches
from hpc_vsr.data.samples import Split

CPU = torch.device("cpu")
SIGMAS, NOISES = [1.0, 3.0], [0.0, 2.0, 4.0]


@pytest.fixture(scope="module")
def manifest(dataset):
    return read_manifest(dataset)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_it_has_the_spread_that_was_asked_for(kind):
    grey = torch.full((1, 5, 100, 100), 100, dtype=kind)
    noisy = add_noise(grey, 3.0, [1, 2])
    assert noisy.dtype == kind and noisy.shape == grey.shape
    difference = noisy.double() - 100
    expected = (9 + (1 / 12 if kind is torch.uint8 else 0)) ** 0.5  # rounding adds its own
    assert abs(float(difference.std()) - expected) < 0.05 and abs(float(difference.mean())) < 0.05
    assert torch.equal(noisy, add_noise(grey, 3.0, [1, 2])) and not torch.equal(noisy, add_noise(grey, 3.0, [1, 3]))
    assert add_noise(grey, 0.0, [1, 2]) is grey


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_it_ends_at_black_and_white(kind):
    frames = torch.tensor([0, 255], dtype=kind).repeat(1000)
    noisy = add_noise(frames, 4.0, [0])
    assert noisy.min() == 0 and noisy.max() == 255


def test_patches_from_memory_are_those_from_the_shards(manifest):
    kept = Clips(manifest, "train", CPU, kind=lambda *one: BlurredSplit(*one, sigmas=SIGMAS))
    read = BlurredSplit(manifest, "train", sigmas=SIGMAS)
    batches = [load_batches(Patches(frames, 12, 3, True, 5, 4, NOISES), 0, 48, 4, 0, 1, 0, CPU)
               for frames in (kept, read)]
    for ours, theirs in zip(*batches, strict=True):
        assert torch.equal(ours.lr, theirs.lr) and torch.equal(ours.hr, theirs.hr)


def test_two_ranks_add_what_one_would(manifest):
    patches = Patches(Split(manifest, "train", CPU), 12, 3, True, 5, 8, NOISES)
    alone = list(load_batches(patches, 8, 32, 8, 0, 1, 0, CPU))
    dealt = [list(load_batches(patches, 8, 32, 8, rank, 2, 0, CPU)) for rank in (0, 1)]
    for whole, *shares in zip(alone, *dealt, strict=True):
        assert torch.equal(whole.lr, torch.cat([share.lr for share in shares]))


def test_each_blur_and_noise_has_its_turn_and_only_lr_is_noisy(manifest):
    patches = Patches(BlurredSplit(manifest, "train", CPU, sigmas=SIGMAS), 12, 3, False, 5, 2, NOISES)
    plain = Patches(Split(manifest, "train", CPU), 12, 3, False, 5)
    levels = [patches.level_of(batch) for batch in range(24)]
    assert all(sorted(levels[first : first + 6]) == list(range(6)) for first in range(0, 24, 6))
    spreads = {}
    for position in range(48):
        place = patches.place(position)
        assert (place.level, NOISES.index(place.noise)) == divmod(levels[position // 2], len(NOISES))
        noisy, clean = patches[position], plain[position]
        assert torch.equal(noisy.hr, clean.hr)
        if SIGMAS[place.level] == manifest.degradation.blur_sigma:
            spreads.setdefault(place.noise, []).append(float((noisy.lr - clean.lr).std()) * 255)
    assert max(spreads[0.0]) == 0
    for noise in NOISES[1:]:  # what black and white cut off makes it smaller
        assert 0.7 * noise < sum(spreads[noise]) / len(spreads[noise]) < 1.1 * noise


def test_without_noise_the_patches_are_as_before(manifest):
    frames = Split(manifest, "train", CPU)
    for position in range(8):
        ours, theirs = Patches(frames, 12, 3, True, 5, 4, [0.0])[position], Patches(frames, 12, 3, True, 5)[position]
        assert torch.equal(ours.lr, theirs.lr) and torch.equal(ours.hr, theirs.hr)
