"""The network that comes with hpc-vsr: an upscaling before anything was trained."""

from __future__ import annotations

import configparser

import numpy as np
import pytest
import torch
from patterns import moving_pattern
from repository import ROOT
from stages import assert_refused, run_stage
from videos import write_video

import hpc_vsr
from hpc_vsr.data.blurred import degradation_of
from hpc_vsr.data.degrade import degrade
from hpc_vsr.media.video_source import open_video
from hpc_vsr.models.enlarge import Enlarge
from hpc_vsr.upscale.bundled import FOLDER

SHAPES = 90  # of the picture below


@pytest.fixture(scope="module")
def hr():
    """Eight grey frames of overlapping rectangles that drift, 192x256, sharp and without texture: (8, 1, 192, 256)."""
    rng = np.random.default_rng(3)
    frames = np.full((8, 1, 384, 512), 128, np.uint8)
    for _ in range(SHAPES):
        top, left, height, width = rng.integers((0, 0, 20, 20), (360, 480, 160, 200))
        drift, grey = rng.integers(-3, 4, 2), int(rng.integers(10, 245))
        for number, frame in enumerate(frames):
            rows, columns = (max(0, side + number * move) for side, move in zip((top, left), drift, strict=True))
            frame[0, rows : rows + height, columns : columns + width] = grey
    finer = frames.reshape(8, 1, 192, 2, 256, 2)
    return np.rint(finer.mean((3, 5))).astype(np.uint8)


def reduce(hr, sigma):
    return np.stack([degrade(frame, degradation_of(sigma, 2)) for frame in hr])


@pytest.mark.compute
@pytest.mark.parametrize("sigma", [0.0, 1.0, 2.0, 3.0, 4.0])
def test_at_every_blur_it_is_better_than_what_needs_no_network(hr, sigma):
    lr = reduce(hr, sigma)
    out = hpc_vsr.load(None, "cpu", "fp32", sigma=sigma).upscale(lr).astype(float)

    def error(frames):
        return np.square(frames - hr)[..., 8:-8, 8:-8].mean()
    for kind in ("bicubic", "wiener"):
        for noise in (1e-4, 1e-3, 1e-2):
            plain = Enlarge(kind, 2, sigma, noise)(torch.from_numpy(lr).float()).numpy()
            assert error(out) < 0.9 * error(np.clip(plain, 0, 255)), (kind, noise)


def test_without_run_upscale_takes_it_and_says_so(tmp_path):
    source = write_video(tmp_path / "in.mkv", moving_pattern(6, 96, 128), codec="ffv1")
    output = tmp_path / "out.mkv"
    done = run_stage("upscale", "--input", source, "--output", output, "--codec", "ffv1", "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    assert f"no --run: takes {FOLDER.name}" in done.stderr and "not for fields" in done.stderr
    assert "taken as blurred by" in done.stderr
    made = open_video(output)
    assert (made.num_frames, made.height, made.width) == (6, 192, 256)


def test_a_field_needs_a_network_of_its_own(tmp_path):
    xarray = pytest.importorskip("xarray")
    path = tmp_path / "field.nc"
    xarray.DataArray(np.random.default_rng(0).normal(size=(6, 24, 32)).astype(np.float32), dims=["time", "y", "x"],
                     name="speed", attrs={"units": "m/s"}).to_netcdf(path)
    done = run_stage("upscale", "--input", path, "--variable", "speed", "--output", tmp_path / "out.nc")
    assert_refused(done, FOLDER.name, "needs a network for fields")


def test_it_is_small_and_has_its_card():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2e6
    card = (FOLDER / "README.md").read_text()
    for word in ("CC0", "CC BY", "Big Buck Bunny", "not made for", "| bicubic |"):
        assert word in card


def test_an_installed_package_has_all_of_it():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = [one.strip() for one in config["options.package_data"]["hpc_vsr.upscale"].split(",")]
    taken = {path for pattern in patterns for path in FOLDER.parent.glob(pattern) if path.is_file()}
    assert taken == {path for path in FOLDER.rglob("*") if path.is_file()} and len(taken) == 6
