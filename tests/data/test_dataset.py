from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
import torch
from stages import run_code

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.patches import Patches, load_batches, told_of_loaders
from hpc_vsr.data.samples import Split, choose_memory, num_bytes
from hpc_vsr.system.errors import Failed, InputError

CPU = torch.device("cpu")
# The batches from loader processes beside those from memory: a line for each, whether they are the same.
ORDER = """
import pathlib, sys, torch
from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.patches import Patches, load_batches
from hpc_vsr.data.samples import Split

manifest, cpu = read_manifest(pathlib.Path(sys.argv[1])), torch.device("cpu")
memory, shards = (Patches(split, 12, 3, True, seed=5)
                  for split in (Split(manifest, "train", cpu), Split(manifest, "train")))
expected = load_batches(memory, 0, 40, 4, 0, 1, 0, cpu)
found = load_batches(shards, 0, 40, 4, 0, 1, int(sys.argv[2]), cpu)
for ours, theirs in zip(found, expected, strict=True):
    print(all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)))
"""


@pytest.fixture(scope="module")
def manifest(dataset):
    return read_manifest(dataset)


def positions_of(batches):
    return torch.cat([batch.lr.flatten(1).sum(1) for batch in batches])


def test_a_shard_reads_as_stacks_for_anyone(dataset, manifest):
    """`h5py.File(p)["lr"][i]` is a window and `["hr"][i]` its centre; no byte is stored twice."""
    for entry in manifest.info.shards:
        with h5py.File(dataset / entry.name) as file:
            count = entry.samples
            assert file["lr"].shape == (count, 5, 1, 24, 32) and file["hr"].shape == (count, 1, 48, 64)
            assert file["lr"].is_virtual and file["hr"].is_virtual
            assert file["frames/lr"].chunks == (1, 1, 24, 32) and file["frames/lr"].compression is None
            for index in range(count):
                np.testing.assert_array_equal(file["lr"][index], file["frames/lr"][index : index + 5])
                np.testing.assert_array_equal(file["hr"][index], file["frames/hr"][index + 2])
            expected = np.arange(count) + entry.first_frame + 2
            np.testing.assert_array_equal(file["frame"], expected)
            assert file["frame"].dtype == np.int64
            assert entry.bytes < 1.2 * (file["frames/lr"].nbytes + file["frames/hr"].nbytes) + 20000


def test_a_shard_stays_readable_when_it_is_moved(dataset, manifest, tmp_path):
    entry = manifest.info.shards[0]
    moved = tmp_path / "elsewhere.h5"
    moved.write_bytes((dataset / entry.name).read_bytes())
    with h5py.File(moved) as file:
        assert file["lr"][0].any() and file["hr"][0].any()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_frames_from_memory_and_from_shards_are_the_same(manifest, split):
    stored, resident = Split(manifest, split), Split(manifest, split, CPU)
    assert len(stored) == manifest.num_samples(split)
    for centre in stored.centres:
        torch.testing.assert_close(stored.window(centre), resident.window(centre), rtol=0, atol=0)
        torch.testing.assert_close(stored.hr_frame(centre), resident.hr_frame(centre), rtol=0, atol=0)


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_order_of_samples_does_not_depend_on_the_number_of_ranks(manifest, world_size):
    patches = Patches(Split(manifest, "train", CPU), 12, 3, True, seed=5)
    alone = positions_of(load_batches(patches, 0, 80, 8, 0, 1, 0, CPU))
    dealt = [list(load_batches(patches, 0, 80, 8, rank, world_size, 0, CPU)) for rank in range(world_size)]
    together = positions_of([batch for step in zip(*dealt, strict=True) for batch in step])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_order_does_not_depend_on_the_number_of_workers(dataset, num_workers):
    """In a process of its own, because the loader forks it: beside the threads of other tests a copy can hang."""
    done = run_code(ORDER, dataset, num_workers)
    assert (done.returncode, done.stdout.split()) == (0, ["True"] * 10), done.stderr


def test_an_epoch_has_every_sample_once_and_the_next_another_order(manifest):
    frames = Split(manifest, "train", CPU)
    count = len(frames)
    whole = Patches(frames, 0, 0, False, seed=1)
    samples = [whole[position].lr.numpy().tobytes() for position in range(2 * count)]
    assert sorted(samples[:count]) == sorted(samples[count:]) and len(set(samples[:count])) == count
    assert samples[:count] != samples[count:]


def test_lr_and_hr_of_a_patch_are_the_same_place(manifest):
    """The patch, reduced, resembles its HR as the whole frame does, however it was turned."""
    patches = Patches(Split(manifest, "train", CPU), 12, 0, True, seed=3)
    for position in range(60):
        lr, hr = patches[position]
        assert lr.shape == (1, 5, 12, 12) and hr.shape == (1, 20, 20)
        centre = lr[0, 2, 1:-1, 1:-1]
        blurred = torch.nn.functional.avg_pool2d(hr[None], 2)[0, 0]
        aligned = torch.corrcoef(torch.stack([centre.flatten(), blurred.flatten()]))[0, 1]
        for other in (blurred.flip(0), blurred.flip(1)):
            mirrored = torch.corrcoef(torch.stack([centre.flatten(), other.flatten()]))[0, 1]
            assert aligned >= mirrored - 0.15, position


def test_the_margin_shows_what_lies_around_a_patch_and_repeats_the_border(manifest):
    frames = Split(manifest, "train", CPU)
    wide, narrow = Patches(frames, 12, 4, False, seed=2), Patches(frames, 12, 0, False, seed=2)
    for position in range(20):
        torch.testing.assert_close(wide[position].lr[..., 4:-4, 4:-4], narrow[position].lr, rtol=0, atol=0)
    whole = Patches(frames, 0, 3, False, seed=2)[0].lr
    assert whole.shape == (1, 5, 24 + 6, 32 + 6)
    torch.testing.assert_close(whole[..., 0, :], whole[..., 3, :], rtol=0, atol=0)


def test_all_16_symmetries_occur_and_time_runs_backwards_in_half(manifest):
    patches = Patches(Split(manifest, "train", CPU), 24, 0, True, seed=0)
    plain = Patches(Split(manifest, "train", CPU), 24, 0, False, seed=0)
    backwards = sum(not torch.allclose(patches[k].lr.mean((0, 2, 3)), plain[k].lr.mean((0, 2, 3)), atol=1e-6)
                    for k in range(100))
    assert 30 < backwards < 70


def test_a_missing_or_short_shard_is_refused(dataset, tmp_path):

    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    victim = copy / read_manifest(copy).info.shards[1].name
    victim.write_bytes(victim.read_bytes()[:-10])
    with pytest.raises(InputError, match="bytes; run the preprocessing again"):
        read_manifest(copy)
    victim.unlink()
    with pytest.raises(InputError, match="is missing"):
        read_manifest(copy)


@pytest.mark.parametrize(("room", "ranks", "kept"), [(2, 1, CPU), (1.9, 1, None), (2, 2, None), (4, 2, CPU)])
def test_frames_are_kept_in_what_the_job_may_take(manifest, monkeypatch, room, ranks, kept):
    monkeypatch.setattr("hpc_vsr.data.samples.free_memory", lambda: int(room * num_bytes(manifest, "train")))
    assert choose_memory(manifest, "auto", CPU, ranks) == kept
    assert choose_memory(manifest, "always", CPU, ranks) == CPU and choose_memory(manifest, "never", CPU, ranks) is None


@pytest.mark.parametrize("error, is_told", [
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), True),
    (ConnectionResetError(104, "Connection reset by peer"), True), (EOFError(), True), (RuntimeError("other"), False),
])
def test_a_loader_process_that_died_is_told_however_it_is_noticed(error, is_told):
    with pytest.raises(Failed if is_told else RuntimeError) as told, told_of_loaders():
        raise error
    assert ("a loader process" in str(told.value)) == is_told
