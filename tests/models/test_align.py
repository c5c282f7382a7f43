"""Neighbours that are moved onto the centre frame: what is moved, and that every way to a network moves it alike."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from stages import assert_refused, run_code, run_stage
from trainings import train_tiny

import hpc_vsr
from hpc_vsr.data.aligned import AlignedSplit
from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.patches import Patches, load_batches
from hpc_vsr.data.samples import Split, num_bytes
from hpc_vsr.data.splits import REACH
from hpc_vsr.media.video_source import open_video
from hpc_vsr.models.align import ALIGN_WRAP, align
from hpc_vsr.models.build import build_model
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.models.wrap import unwrap, wrap
from hpc_vsr.system.errors import InputError

pytestmark = pytest.mark.compute
CPU = torch.device("cpu")


def pattern(height: int, width: int, down: float, right: float) -> np.ndarray:
    """A picture of smooth blobs, moved; values 0..1. It goes on at the other side after 64 columns."""
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    rows, columns = rows - down, columns - right
    waves = [np.sin(2 * np.pi * (a * columns / 64 + b * rows / 53 + phase))
             for a, b, phase in ((1, 2, 0.1), (3, 1, 0.4), (4, -3, 0.2), (2, 5, 0.7))]
    return np.float32(0.5 + 0.11 * sum(waves))


def moving(height=48, width=64, step=(0.6, 1.3)) -> torch.Tensor:
    """A (1, 1, 5, h, w) window of the pattern; the centre frame has not moved."""
    frames = [pattern(height, width, index * step[0], index * step[1]) for index in range(-2, 3)]
    return torch.from_numpy(np.stack(frames))[None, None]


def worst(window: torch.Tensor, cut: int) -> float:
    """The largest difference between the neighbours and the centre frame, off the border."""
    inner = window[..., cut : window.shape[-2] - cut, cut : window.shape[-1] - cut]
    return float((inner - inner[:, :, 2:3]).abs().max())


def test_neighbours_are_moved_onto_the_centre_frame():
    window = moving()
    before = window.clone()
    moved = align(window)
    assert worst(window, 6) > 0.2 and worst(moved, 6) < 0.02
    assert torch.equal(window, before) and torch.equal(moved[:, :, 2], window[:, :, 2])


def test_all_channels_move_together():
    window = moving()
    both = align(torch.cat([window, 0.5 * window], 1))
    assert worst(both[:, :1], 6) < 0.02 and worst(both[:, 1:], 6) < 0.01


def test_the_number_of_threads_does_not_change_a_bit():
    window = torch.from_numpy(np.random.default_rng(0).random((1, 1, 5, 90, 140), np.float32))
    window = torch.nn.functional.avg_pool3d(window, (1, 5, 5), 1, (0, 2, 2))
    before = cv2.getNumThreads()
    try:
        found = []
        for threads in (1, 2, 7):
            cv2.setNumThreads(threads)
            found.append(align(window))
    finally:
        cv2.setNumThreads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_thin_frames_are_moved_too():
    """OpenCV's flow of fewer than 16 rows reads memory that is not its own, and may end the process."""
    code = ("import torch\nfrom hpc_vsr.models.align import align\n"
            "for size in (8, 8), (8, 100), (11, 640), (14, 2000), (40, 8), (2, 100):\n"
            "    window = torch.rand(1, 1, 5, *size)\n"
            "    assert align(window).shape == window.shape and align(window).isfinite().all()")
    done = run_code(code)
    assert done.returncode == 0, done.stderr
    window = moving(8, 100, step=(0.0, 1.3))
    moved = align(window)
    inner = (slice(None), slice(None), slice(None), slice(2, 6), slice(8, -8))
    before, after = (float((values - values[:, :, 2:3])[inner].abs().mean()) for values in (window, moved))
    assert after < before / 4


def test_what_has_no_values_stays():
    assert align(torch.empty(1, 1, 5, 48, 64, device="meta")).device.type == "meta"


def test_frames_that_go_on_at_the_other_side_are_read_there():
    window = moving(step=(0, 2.0))
    there = unwrap(align(wrap(window, ALIGN_WRAP, "x")), ALIGN_WRAP, "x", window.shape[-2:])
    edge = (slice(None),) * 3 + (slice(8, -8), slice(0, 4))
    error = [float((values - values[:, :, 2:3])[edge].abs().max()) for values in (there, align(window))]
    assert error[0] < 0.02 < 0.1 < error[1]


@pytest.mark.parametrize("frames", [3, 5])
def test_a_network_sees_moved_frames(frames):
    settings = ModelSettings(name="compact", width=4, blocks=1, frames=frames, skip="wiener", input="deconvolved")
    torch.manual_seed(0)
    plain = build_model(settings, 1, 2, 1.5, 1e-3).eval()
    for weight in plain.parameters():
        torch.nn.init.normal_(weight, 0, 0.1)
    aligned = build_model(ModelSettings(**{**vars(settings), "align": True}), 1, 2, 1.5, 1e-3).eval()
    aligned.load_state_dict(plain.state_dict())
    window = moving()
    with torch.inference_mode():
        for tile in (0, 20):
            out = aligned.upscale(window, tile)
            assert torch.equal(out, plain.upscale(align(window), tile))
            assert not torch.equal(out, plain.upscale(window, tile))
            seen = [aligned.prepare(window[:, :, index]) for index in range(5)][(5 - frames) // 2 :][:frames]
            assert torch.equal(aligned.upscale_seen(seen, tile), out)


def test_patches_are_cut_from_moved_frames(dataset):
    manifest = read_manifest(dataset)
    memory, shards = AlignedSplit(manifest, "train", CPU), AlignedSplit(manifest, "train")
    for size, augment in ((12, True), (0, False)):
        kept, read = Patches(memory, size, 3, augment, seed=5), Patches(shards, size, 3, augment, seed=5)
        for ours, theirs in zip(load_batches(kept, 0, 24, 4, 0, 1, 0, CPU), load_batches(read, 0, 24, 4, 0, 1, 0, CPU),
                                strict=True):
            assert torch.equal(ours.lr, theirs.lr) and torch.equal(ours.hr, theirs.hr)
    plain, whole = Split(manifest, "train"), Patches(memory, 0, 0, False, seed=1)
    for position in range(3):
        window = plain.window(whole.place(position).centre)
        torch.testing.assert_close(whole[position].lr, align(window[None])[0], rtol=0, atol=1e-6)
    assert num_bytes(manifest, "train", aligned=True) == sum(
        tensor.numel() * tensor.element_size() for tensor in (*memory.memory, memory.windows_in_memory))


@pytest.mark.parametrize(("settings", "words"), [({"name": "flow4x"}, "finds the motion itself"),
                                                 ({"name": "compact", "frames": 1}, "shows no neighbour")])
def test_networks_without_neighbours_to_move_are_refused(settings, words):
    with pytest.raises(InputError, match=f"model.align: .*{words}"):
        ModelSettings(align=True, **settings)


@pytest.mark.slow
def test_from_the_training_to_the_picture(dataset, clip, tmp_path):
    run, out = tmp_path / "r", tmp_path / "out.mkv"
    done = train_tiny(dataset, run, "--model.name", "compact", "--model.n_2d", 5, "--model.n_3d", 5, "--model.align",
                      "true", "--train.steps", 4)
    assert done.returncode == 0, done.stderr
    assert run_stage("evaluate", "--run", run).returncode == 0
    done = run_stage("upscale", "--run", run, "--input", clip, "--output", out, "--stop", 6)
    assert done.returncode == 0, done.stderr
    assert open_video(out).num_frames == 6
    # a stream shows what single windows show
    network = hpc_vsr.load(run, device="cpu", precision="fp32")
    luma = np.stack([frame[0] for frame, _ in open_video(clip).read(10, 22)]).astype(np.float32)
    stream = network.upscale(luma, white=255)
    alone = network.enlarge(torch.from_numpy(luma[None, 3 : 4 + 2 * REACH]))[0].numpy()
    np.testing.assert_allclose(stream[3 + REACH], alone, atol=1e-3)
    assert_refused(run_stage("export", "--run", run), "model.align")
