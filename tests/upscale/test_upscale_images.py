"""A folder of images through `upscale`."""

from __future__ import annotations

import shutil
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile
from machine import find_mpiexec
from patterns import moving_pattern
from stages import assert_refused, run_stage
from upscaling import upscale

from hpc_vsr.data.plan import plan_dataset
from hpc_vsr.data.recipe import Recipe
from hpc_vsr.media.colour import select_channels
from hpc_vsr.media.reading import Facts
from hpc_vsr.media.source import KINDS, Kind
from hpc_vsr.system.lock import only_writer


@pytest.fixture
def folder(tmp_path):
    """12 images of 64x48."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, rgb in enumerate(moving_pattern(12, 48, 64)):
        cv2.imwrite(str(folder / f"frame{index}.png"), rgb[..., ::-1])
    return folder


def read(path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_every_image_comes_back_at_twice_the_size(trained, folder, tmp_path):
    out = tmp_path / "out"
    done = upscale(trained, folder, out)
    assert done.returncode == 0, done.stderr
    for index in range(12):
        small, large = read(folder / f"frame{index}.png"), read(out / f"frame{index}.png")
        assert large.shape == (96, 128, 3) and large.dtype == np.uint8
        reduced = large.reshape(48, 2, 64, 2, 3).mean((1, 3))
        assert np.abs(reduced.mean((0, 1)) - small.mean((0, 1))).max() < 3  # of each colour
    assert sorted(path.name for path in out.iterdir())[-1] == "upscale.json"


@pytest.mark.parametrize(("dtype", "suffix"), [(np.uint16, "tif"), (np.uint16, "png"), (np.uint8, "png")])
def test_depth_and_gray_stay(trained, folder, tmp_path, dtype, suffix):
    source, out = tmp_path / "gray", tmp_path / "out"
    source.mkdir()
    for index in range(5):
        gray = read(folder / f"frame{index}.png")[..., 1].astype(dtype) * (257 if dtype == np.uint16 else 1)
        cv2.imwrite(str(source / f"{index}.{suffix}"), gray)
    assert upscale(trained, source, out).returncode == 0
    large = read(out / f"2.{suffix}")
    assert large.shape == (96, 128) and large.dtype == dtype
    assert large.max() > 180 * (257 if dtype == np.uint16 else 1)


def test_it_resumes_with_what_is_missing(trained, folder, tmp_path):
    out, part = tmp_path / "out", tmp_path / "part"
    assert upscale(trained, folder, out).returncode == 0
    shutil.copytree(out, part)
    for index in (3, 4, 9):
        (part / f"frame{index}.png").unlink()
    (part / ".upscale.json.node1.7.partial").touch()  # by a process that was killed
    done = upscale(trained, folder, part)
    assert done.returncode == 0 and "9 finished before" in done.stderr and "3/3 images" in done.stderr
    for path in out.iterdir():
        assert path.read_bytes() == (part / path.name).read_bytes(), path.name
    assert not list(part.glob(".*"))


@pytest.mark.mpi
def test_ranks_and_tasks_make_the_same_images(trained, folder, tmp_path):
    out, ranks, tasks = (tmp_path / name for name in ("out", "ranks", "tasks"))
    assert upscale(trained, folder, out).returncode == 0
    done = run_stage("upscale", "--run", trained, "--input", folder, "--output", ranks, "--precision", "fp32",
                     launcher=(find_mpiexec(), "-n", "2"))
    assert done.returncode == 0, done.stderr
    for part in ("2/2", "1/2"):
        assert upscale(trained, folder, tasks, "--part", part).returncode == 0
    assert "12 finished before" in upscale(trained, folder, tasks).stderr
    for path in out.glob("*.png"):
        assert path.read_bytes() == (ranks / path.name).read_bytes() == (tasks / path.name).read_bytes()


def test_images_are_shared_in_one_way_at_a_time(trained, folder, tmp_path):
    """Two tasks that share the images differently would write the same ones."""
    out = tmp_path / "out"
    done = upscale(trained, folder, out, "--part", "1/4")
    assert done.returncode == 0 and "3 of 12 images are there; the command without --part makes what" in done.stderr
    with only_writer(out, ".lock-2-of-4"):  # as an element that still runs
        assert_refused(upscale(trained, folder, out, "--part", "1/1"), "is writing into it; wait for it")
    (out / ".lock-3-of-4").touch()  # left by one that was killed
    assert upscale(trained, folder, out, "--part", "1/1").returncode == 0
    assert len(list(out.glob("*.png"))) == 12 and not list(out.glob(".lock*"))


def test_a_dry_run_tells_the_plan_and_writes_nothing(trained, folder, tmp_path):
    done = upscale(trained, folder, tmp_path / "out", "--dry-run")
    assert done.returncode == 0 and "12 images of" in done.stdout and not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused(trained, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for source, to, words in ((tmp_path / "empty", tmp_path / "out", "no images"),
                              (folder, tmp_path / "full", "not empty"),
                              (folder, folder, "is the input")):
        assert_refused(upscale(trained, source, to), words)
    assert not (tmp_path / "out").exists()


def write_folder(folder, images, suffix="png") -> None:
    folder.mkdir()
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / f"{index}.{suffix}"), image)


def test_12_bits_in_16_come_back_as_bright_as_they_were(trained, tmp_path):
    """As 16 bits with the same brightness do; read as 16 bits they would be nearly black."""
    gray = moving_pattern(5, 24, 32)[..., 1].astype(np.float64)
    for name, white in (("a", 4095), ("b", 65535)):
        write_folder(tmp_path / name, np.rint(gray * white / 255).astype(np.uint16))
    warned = upscale(trained, tmp_path / "a", tmp_path / "a2")
    assert warned.returncode == 0 and "white is taken to be 4095" in warned.stderr
    assert upscale(trained, tmp_path / "b", tmp_path / "b2").returncode == 0
    low, full = read(tmp_path / "a2" / "2.png"), read(tmp_path / "b2" / "2.png")
    assert low.dtype == full.dtype == np.uint16 and low.max() <= 4095
    # the input was rounded to whole values, and the network sharpens that
    np.testing.assert_allclose(low.astype(float), full * (4095 / 65535), atol=4)


def test_the_first_image_may_be_gray(trained, tmp_path):
    colours = moving_pattern(5, 24, 32)[..., ::-1]
    write_folder(tmp_path / "in", [colours[0][..., 1], *colours[1:]])
    assert upscale(trained, tmp_path / "in", tmp_path / "out").returncode == 0
    small, large = (read(tmp_path / name / "3.png").astype(float).mean((0, 1)) for name in ("in", "out"))
    assert large.shape == (3,) and np.abs(large - small).max() < 3 and np.ptp(small) > 10


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_transparency_is_enlarged(trained, tmp_path, suffix):
    colours = moving_pattern(5, 24, 32)[..., ::-1]
    ramp = np.broadcast_to(8 * np.arange(32), (24, 32)).astype(np.uint8)
    write_folder(tmp_path / "in", [np.dstack([image, ramp]) for image in colours], suffix)
    write_folder(tmp_path / "plain", colours, suffix)
    for name in ("in", "plain"):
        assert upscale(trained, tmp_path / name, tmp_path / f"{name}2").returncode == 0
    path = tmp_path / "in2" / f"2.{suffix}"  # OpenCV would multiply the colours of a TIFF file by its transparency
    large = read(path) if suffix == "png" else tifffile.imread(path)[..., [2, 1, 0, 3]]
    np.testing.assert_array_equal(large[..., :3], read(tmp_path / "plain2" / f"2.{suffix}"))
    wanted = 8 * ((np.arange(64) + 0.5) / 2 - 0.5)  # the centre of a pixel of the output, in those of the input
    np.testing.assert_allclose(large[..., 3].astype(float)[:, 8:-8], np.tile(wanted[8:-8], (48, 1)), atol=1)
    if suffix == "tif":
        with tifffile.TiffFile(tmp_path / "in2" / "2.tif") as file:
            assert [extra.name for extra in file.pages[0].extrasamples] == ["UNASSALPHA"]


def test_each_page_of_a_tiff_file_becomes_an_image(trained, tmp_path):
    gray = moving_pattern(12, 24, 32)[..., 1]
    tifffile.imwrite(tmp_path / "stack.tif", gray)
    write_folder(tmp_path / "in", gray, "tif")
    for source, out in (("stack.tif", "a"), ("in", "b")):
        assert upscale(trained, tmp_path / source, tmp_path / out).returncode == 0
    for index in range(12):
        assert (tmp_path / "a" / f"stack-{index:02d}.tif").read_bytes() == \
            (tmp_path / "b" / f"{index}.tif").read_bytes()


def test_frames_beyond_a_missing_number_are_not_used(trained, folder, tmp_path):
    write_folder(tmp_path / "first", [read(folder / f"frame{index}.png") for index in range(5)])
    for index in range(5, 12):
        (folder / f"frame{index}.png").rename(folder / f"frame{index + 20}.png")
    done = upscale(trained, folder, tmp_path / "a", "--find-cuts", "false")
    assert done.returncode == 0 and "after frame4.png comes frame25.png" in done.stderr
    assert upscale(trained, tmp_path / "first", tmp_path / "b", "--find-cuts", "false").returncode == 0
    for index in range(5):
        assert (tmp_path / "a" / f"frame{index}.png").read_bytes() == (tmp_path / "b" / f"{index}.png").read_bytes()


def test_float_images_are_refused_because_their_white_is_not_known(trained, tmp_path):
    write_folder(tmp_path / "in", [np.zeros((24, 32), np.float32)] * 5, "tif")
    assert_refused(upscale(trained, tmp_path / "in", tmp_path / "out"), "whose white is not known")


class Stack:
    """Images in one .npy file, (T, H, W, 3) uint8: a kind of source that the program does not have."""

    dtype, white, is_gray, channels, description = "uint8", 255, False, ("Y",), {}
    facts, stored = Facts(), np.dtype(np.uint8)

    def __init__(self, path, channels):
        self.files, self._images = [path], np.load(path)
        self.num_frames, self.height, self.width = self._images.shape[:3]
        self.names = [f"frame{index}.png" for index in range(self.num_frames)]

    def images(self, start, stop):
        yield from self._images[start:stop]

    def read(self, start, stop):
        for image in self.images(start, stop):
            yield select_channels(image, "y"), None


def test_a_new_kind_of_source_is_a_module_and_a_line(trained, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "hpc_vsr.media.stack_source", SimpleNamespace(open_stack=Stack))
    line = Kind("frames", "stack_source.open_stack", ("channels",), (".npy",))
    monkeypatch.setattr("hpc_vsr.media.source.KINDS", (*KINDS, line))
    path = tmp_path / "images.npy"
    np.save(path, np.concatenate([moving_pattern(12, 48, 64)] * 2))
    assert isinstance(plan_dataset(Recipe(frames=path)).clips[0].source, Stack)
    assert upscale(trained, path, tmp_path / "out", "--stop", 9).returncode == 0
    assert upscale(trained, folder, tmp_path / "images", "--stop", 9).returncode == 0
    for index in range(5):
        name = f"frame{index}.png"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "images" / name).read_bytes()
