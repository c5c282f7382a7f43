"""Arrays through a trained network, the windows of a stream, scene cuts and blur."""

from __future__ import annotations

import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from patterns import moving_pattern
from repository import SAMPLE
from stages import run_code

import hpc_vsr
from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.degrade import degrade
from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.samples import Split
from hpc_vsr.data.splits import REACH
from hpc_vsr.media.blur import measure_blur
from hpc_vsr.media.chroma import enlarge_plane
from hpc_vsr.media.video_source import open_video
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.runs.trained import DataTerms
from hpc_vsr.system.errors import InputError
from hpc_vsr.upscale.checks import warn_of_blur, warn_of_missing, warn_of_noise
from hpc_vsr.upscale.memory import Needs, choose_workers, state_memory
from hpc_vsr.upscale.windows import CONTEXT, windows

pytestmark = pytest.mark.compute


@pytest.fixture(scope="module")
def network(trained):
    return hpc_vsr.load(trained, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def luma() -> np.ndarray:
    """(12, 24, 32) uint8."""
    return moving_pattern(12, 24, 32)[..., 1]


def test_every_frame_comes_back_at_twice_the_size(network, luma):
    out = network.upscale(luma)
    assert out.shape == (12, 48, 64) and out.dtype == np.uint8


def test_it_makes_what_the_evaluation_measures(network, dataset):
    split = Split(read_manifest(dataset), "test")
    lr = split.lr_frames(split.start, split.start + 5)[:, 0].numpy()
    whole = network.upscale(lr / np.float32(255))[REACH]
    alone = network.enlarge(split.lr_frames(split.start, split.start + 5).transpose(0, 1))[0].numpy() / 255
    np.testing.assert_allclose(whole, alone, atol=1e-6)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint16, None), (np.float32, None), (np.float64, None),
                                              (np.float32, 255.0)])
def test_types_and_ranges_of_values_stay(network, luma, dtype, white):
    as_uint8 = network.upscale(luma).astype(np.float64) / 255
    full = white or (65535 if dtype == np.uint16 else 1.0)
    out = network.upscale((luma / 255 * full).astype(dtype), white=white)
    assert out.dtype == dtype
    np.testing.assert_allclose(np.clip(out / full, 0, 1), as_uint8, atol=0.6 / 255)


def test_tiles_give_the_same(trained, network, luma):
    tiled = hpc_vsr.load(trained, device="cpu", precision="fp32", tile=8).upscale(luma / 255)
    np.testing.assert_allclose(tiled, network.upscale(luma / 255), atol=1e-5)


@pytest.mark.parametrize(("frames", "words"), [
    (np.zeros((4, 3, 24, 32), np.uint8), "shape"),
    (np.zeros((24, 32), np.uint8), "shape"),
    (np.zeros((5, 4, 32), np.uint8), "too small"),
    (np.zeros((5, 24, 32), np.int32), "int32"),
    (np.full((5, 24, 32), np.nan), "NaN"),
    (np.full((5, 24, 32), 200.0), "white=255"),
])
def test_what_is_no_stack_of_frames_is_refused(network, frames, words):
    with pytest.raises(InputError, match=words):
        network.upscale(frames)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="runs/NAME"):
        hpc_vsr.load(tmp_path)


def scenes(*lengths: int) -> list[np.ndarray]:
    """Frames of uniform noise of different brightness for each scene."""
    random = np.random.default_rng(0)
    return [random.uniform(60 * index, 60 * index + 20, (16, 16)).astype(np.float32)
            for index, length in enumerate(lengths) for _ in range(length)]


def around(frames: list, first: int, wanted: range, num_frames: int, luma_of=np.asarray, breaks=()
           ) -> dict[int, list[int]]:
    """{frame: numbers of the frames in its window}."""
    numbers = {id(frame): index for index, frame in enumerate(frames)}
    stream = windows(frames[first:], first, wanted, num_frames, luma_of, breaks)
    return {centre: [numbers[id(frame)] for frame in window] for centre, window in zip(wanted, stream, strict=True)}


def test_the_nearest_frame_stands_in_at_both_ends():
    frames = scenes(6)
    found = around(frames, 0, range(6), 6)
    assert found[0] == [0, 0, 0, 1, 2] and found[3] == [1, 2, 3, 4, 5] and found[5] == [3, 4, 5, 5, 5]


def test_windows_do_not_cross_a_cut():
    frames = scenes(7, 6)
    found = around(frames, 0, range(13), 13)
    assert found[6] == [4, 5, 6, 6, 6] and found[7] == [7, 7, 7, 8, 9] and found[5] == [3, 4, 5, 6, 6]
    assert around(frames, 0, range(13), 13, None)[6] == [4, 5, 6, 7, 8]


def test_windows_do_not_cross_a_gap():
    frames = scenes(13)
    for luma_of in (np.asarray, None):
        found = around(frames, 0, range(13), 13, luma_of, breaks=[4, 5])
        assert found[3] == [1, 2, 3, 3, 3] and found[4] == [4] * 5 and found[6] == [5, 5, 6, 7, 8]


def test_windows_are_the_same_from_any_place():
    frames = scenes(7, 3, 8, 1, 9)
    whole = around(frames, 0, range(28), 28)
    for start in range(0, 28, 5):
        part = around(frames, max(0, start - CONTEXT), range(start, min(28, start + 5)), 28)
        assert part == {centre: whole[centre] for centre in part}


def test_motion_and_a_flash_are_no_cuts():
    moving = [frame[..., 1].astype(np.float32) for frame in moving_pattern(12, 48, 64)]
    flash = [frame + 120 * (index == 6) for index, frame in enumerate(moving)]
    for frames in (moving, flash):
        assert around(frames, 0, range(12), 12)[6] == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("sigma", [2.0, 3.0])
def test_blur_is_measured(sigma):
    frames = [frame for frame, _ in open_video(SAMPLE).read(0, 40)][::10]
    degradation = Degradation("BD", sigma, 2)
    lr = [degrade(frame, degradation)[0] for frame in frames]
    assert measure_blur(lr) == pytest.approx(sigma / 2, abs=0.25)
    assert measure_blur([frame[0] for frame in frames]) < 0.8
    assert measure_blur([np.zeros((64, 64))]) is None and measure_blur([np.ones((8, 8))]) is None


def test_frames_of_another_blur_are_told(network):
    sharp = [frame[0] for frame, _ in open_video(SAMPLE).read(0, 3)]
    assert "ring" in warn_of_blur(network, [frame[None] for frame in sharp], "in.mp4")
    assert "soft" in warn_of_blur(network, [cv2.GaussianBlur(frame, (0, 0), 3)[None] for frame in sharp], "in.mp4")
    fitting = [degrade(frame[None], Degradation("BD", 3.0, 2)) for frame in sharp]
    assert warn_of_blur(network, fitting, "in.mp4") is None


def test_a_picture_of_every_third_pixel_is_not_too_sharp_for_its_network():
    terms = DataTerms(1, 3, 0.0, 1e-3, 0.0, 255.0, "")
    network = SimpleNamespace(name="three", trained=SimpleNamespace(terms=terms))
    crisp = [cv2.addWeighted(frame[0], 1.5, cv2.GaussianBlur(frame[0], (0, 0), 1), -0.5, 0)
             for frame, _ in open_video(SAMPLE).read(0, 3)]
    sharp = [degrade(frame[None], Degradation("BI", scale=3))[0] for frame in crisp]
    assert measure_blur(sharp) < 0.1  # far below what sharp pictures show otherwise
    assert warn_of_blur(network, [frame[None] for frame in sharp], "in.mp4") is None
    assert "soft" in warn_of_blur(network, [cv2.GaussianBlur(frame, (0, 0), 1.5)[None] for frame in sharp], "in.mp4")


def test_the_noise_is_that_of_a_channel(network):
    """A network adds the noise of its training to each channel; a mean over the channels would have less."""
    random = np.random.default_rng(0)
    frames = [degrade(frame.repeat(3, 0), Degradation("BD", 3.0, 2)) for frame, _ in open_video(SAMPLE).read(0, 3)]
    noisy = [np.clip(np.rint(frame + 5 * random.standard_normal(frame.shape)), 0, 255) for frame in frames]
    found, = re.findall(r"looks noisy \((\S+) grey levels\)", warn_of_noise(network, noisy, "in.mp4"))
    assert abs(float(found) - 5) < 0.3
    assert warn_of_noise(network, frames, "in.mp4") is None


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("subsampling", "beside_left", "shift"), [((1, 1), True, 0), ((2, 2), True, 0.25),
                                                                  ((2, 2), False, 0)])
def test_chroma_stays_where_it_belongs(subsampling, beside_left, shift, scale):
    """A ramp shows by how much of a pixel a plane moves against one that keeps its outer edge.

    OpenCV knows places only to 1/32 of a pixel: thirds are off by 1/96.
    """
    ramp = np.tile(np.arange(40, dtype=np.float32), (20, 1))
    out = enlarge_plane(ramp, (20 * scale, 40 * scale), scale, subsampling, beside_left)
    columns = np.arange(10 * scale, 30 * scale)
    places = (columns + 0.5) / scale - 0.5 + shift * (1 - 1 / scale)
    np.testing.assert_allclose(out[10 * scale, columns], places, atol=0.02 + (1 / 96 if scale == 3 else 0))


def test_a_network_of_a_field_wants_floats(trained, monkeypatch):
    network = hpc_vsr.load(trained, device="cpu", precision="fp32")
    network.for_video = False
    with pytest.raises(InputError, match="float values"):
        network.upscale(np.zeros((5, 24, 32), np.uint8))
    values = torch.rand(5, 24, 32).numpy() * 4 - 2
    assert network.upscale(values).shape == (5, 48, 64)


def test_rings_near_missing_cells_are_warned_of(network):
    valid = np.ones((2, 8, 10), bool)
    valid[1, 2:4, 5] = False
    line, = warn_of_missing(network, valid, ["u", "v"])
    assert line.startswith("warning: v has no value in 2.5 %")
    assert f"up to {network.trained.network.reach} cells" in line
    assert list(warn_of_missing(network, valid[1], ["t"])) and not list(warn_of_missing(network, None, ["t"]))
    plain = SimpleNamespace(trained=SimpleNamespace(settings=ModelSettings(), network=network.trained.network))
    assert not list(warn_of_missing(plain, valid, ["u", "v"]))


@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize(("size", "tile"), [((96, 128), 0), ((200, 160), 96)])
def test_a_process_takes_no_more_memory_than_is_stated(trained, size, tile, cores):
    code = ("import hpc_vsr, numpy, torch; from hpc_vsr.system.memory import peak_memory\n"
            f"torch.set_num_threads({cores})\n"
            f"network = hpc_vsr.load({str(trained)!r}, 'cpu', 'fp32', {tile})\n"
            f"network.share_cores(*{size})\n"
            f"assert network.workers == {cores}\n"
            f"print(network.memory(*{size}))\n"
            f"network.upscale(numpy.zeros((10, *{size}), 'uint8'))\n"
            "print(peak_memory())")
    done = run_code(code)
    assert done.returncode == 0, done.stderr
    stated, taken = map(int, done.stdout.split())
    assert taken <= stated <= 3 * taken


def test_too_little_memory_is_warned_of(network, monkeypatch, capsys):
    monkeypatch.setattr("hpc_vsr.upscale.memory.free_memory", lambda: 1_000_000_000)
    monkeypatch.setattr("hpc_vsr.upscale.memory.process_memory", lambda: 450_000_000)  # not that of the tests
    stated = state_memory(network, 24, 32)
    assert re.fullmatch(r"up to \d+\.\d MB of memory", stated) and not capsys.readouterr().err
    state_memory(network, 24, 32, processes=8)
    assert "and 1.0 GB are free; choose a smaller --tile or fewer ranks" in capsys.readouterr().err


@pytest.mark.parametrize("cores, fit, expected", [
    (1, 9, 1), (2, 9, 2), (8, 5, 4), (7, 6, 6), (64, 40, 32), (64, 70, 64), (16, 0, 1), (3, 2, 1)])
def test_cores_are_shared_among_workers_that_fit_into_half_of_the_memory(network, monkeypatch, cores, fit, expected):
    needs = Needs(fixed=450_000_000, each=200_000_000)
    monkeypatch.setattr("hpc_vsr.upscale.memory.estimate_memory", lambda *_: needs)
    monkeypatch.setattr("hpc_vsr.upscale.memory.free_memory", lambda: 2 * needs.of(fit) + 100)
    assert choose_workers(network, 24, 32, cores, 1, 0) == expected
    monkeypatch.setattr("hpc_vsr.upscale.memory.free_memory", lambda: None)  # not known
    assert choose_workers(network, 24, 32, cores, 1, 0) == cores
