"""Every stage at 3 times, whose LR pixels lie on a pixel of HR: on a video, on images and on a field."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
import xarray
from patterns import moving_pattern
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio
from stages import assert_refused, run_stage
from trainings import train_tiny
from upscaling import upscale
from videos import write_video

import hpc_vsr
from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.degrade import degrade
from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.samples import Split
from hpc_vsr.media.video_source import open_video

pytestmark = pytest.mark.slow

COMPACT = ("--model.name", "compact", "--model.n_2d", 5, "--model.n_3d", 5, "--train.lr", 1e-4, "--train.patch_size", 8)
EDGE = 9  # HR pixels at each side that are not compared


def make_run(folder: Path, *source) -> Path:
    """Make the data set at 3 times, train `compact` for six steps and measure it with all its variants."""
    for done in (run_stage("preprocess", *source, "--degradation.scale", 3, "--shards", 3, "--out", folder / "data"),
                 train_tiny(folder / "data", folder / "three", *COMPACT),
                 run_stage("evaluate", "--run", folder / "three", "--self_ensemble", "true", "--back_projection", 3,
                           "--first_stage", "true")):
        assert done.returncode == 0, done.stderr
    assert "compact has no 2D part, so there is no row for it" in done.stderr
    return folder / "three"


@pytest.fixture(scope="module")
def run(clip, tmp_path_factory) -> Path:
    """A run on `clip`, whose 64 columns are no multiple of 3."""
    return make_run(tmp_path_factory.mktemp("video"), "--video", clip)


@pytest.fixture(scope="module")
def small() -> np.ndarray:
    """Twelve frames of 63x45, both odd, whose luma is the degraded one of `moving_pattern(12, 135, 189)`."""
    large = moving_pattern(12, 135, 189)
    return np.stack([degrade(frame.transpose(2, 0, 1), Degradation(scale=3)).transpose(1, 2, 0) for frame in large])


def assert_in_place(sr: np.ndarray, hr: np.ndarray) -> None:
    """Check that (H, W) frames agree best where they lie, not a pixel beside it."""
    inner, errors = slice(EDGE, -EDGE), {}
    for shift in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)):
        moved = np.roll(sr.astype(float), shift, (0, 1))
        errors[shift] = np.square(moved - hr)[inner, inner].mean()
    assert min(errors, key=errors.get) == (0, 0), errors


def test_the_data_set_holds_the_middle_of_each_lr_pixel(run):
    manifest = read_manifest(run.parent / "data")
    assert (manifest.lr_size, manifest.info.hr_size) == ((16, 21), (48, 63))
    split = Split(manifest, "test")
    centre = split.centres[0]
    hr, lr = split.hr_frame(centre)[0].numpy(), split.lr_frames(centre, centre + 1)[0, 0].numpy()
    exact = gaussian_filter(hr.astype(float), 3.0, truncate=3, mode="mirror")[1::3, 1::3]
    assert np.abs(lr - exact).max() < 1.5  # both roundings of OpenCV


def test_the_figures_are_those_of_opencv_and_scikit_image(run):
    rows = {(row["method"], row["profile"]): row for row in json.loads((run / "metrics-test.json").read_text())["rows"]}
    split = Split(read_manifest(run.parent / "data"), "test")
    for index, centre in enumerate(split.centres):
        lr, hr = split.lr_frames(centre, centre + 1)[0, 0].numpy(), split.hr_frame(centre)[0].numpy()
        sr = np.rint(cv2.resize(lr.astype(np.float32), (63, 48), interpolation=cv2.INTER_CUBIC)).clip(0, 255)
        expected = peak_signal_noise_ratio(hr[2:-2, 2:-2], sr.astype(np.uint8)[2:-2, 2:-2])
        assert rows["bicubic", "paper"]["per_frame"]["psnr"][index] == pytest.approx(expected, abs=2e-3)
    bicubic, wiener, *ours = (rows[name, "paper"]["psnr"] for name in ("bicubic", "wiener", "three", "three x8",
                                                                       "three bp"))
    assert wiener > bicubic + 1 and ours == pytest.approx([wiener] * 3, abs=1)


def test_the_report_shows_it(run):
    assert run_stage("report", run).returncode == 0
    text = (run / "report" / "report.md").read_text()
    assert "# clip.mp4, 3 times" in text and "| three x8" in text
    assert (run / "report" / "index.html").stat().st_size > 100_000


def test_a_video_of_odd_size_is_enlarged_in_place(run, small, tmp_path):
    """Its chroma planes have 32x23 pixels, and those of the result 95x68, which h264 refuses."""
    source = write_video(tmp_path / "in.mkv", small, "ffv1")
    for codec, coded in (("auto", "ffv1 yuv420p"), ("h264", "h264 yuv444p")):
        done = upscale(run, source, tmp_path / f"{codec}.mkv", "--codec", codec)
        assert done.returncode == 0 and f"63x45 to 189x135, {coded}" in done.stderr, done.stderr
        after = open_video(tmp_path / f"{codec}.mkv")
        assert (after.height, after.width, after.num_frames) == (135, 189, 12)
    luma, *chroma = list(open_video(tmp_path / "auto.mkv").read_planes(6, 7, "yuv420p"))[0]
    hr = cv2.cvtColor(moving_pattern(7, 135, 189)[6], cv2.COLOR_RGB2YCrCb)[..., 0]
    assert_in_place((luma.astype(float) - 16) * 255 / 219, hr)
    before = list(open_video(source).read_planes(6, 7, "yuv420p"))[0][1:]
    for plane, large in zip(before, chroma, strict=True):
        assert large.shape == (68, 95)
        assert np.corrcoef(large[1::3, 1::3].ravel(), plane[:, :32].ravel())[0, 1] > 0.98


def test_images_are_enlarged_in_place(run, small, tmp_path):
    (tmp_path / "in").mkdir()
    for index, rgb in enumerate(small[:7]):
        cv2.imwrite(str(tmp_path / "in" / f"{index}.png"), rgb[..., ::-1])
    done = upscale(run, tmp_path / "in", tmp_path / "out", "--tile", 32)
    assert done.returncode == 0, done.stderr
    sr, hr = cv2.imread(str(tmp_path / "out" / "4.png")), moving_pattern(5, 135, 189)[4][..., ::-1]
    assert sr.shape == hr.shape
    for channel in range(3):
        assert_in_place(sr[..., channel], hr[..., channel])


def test_onnx_gives_what_the_network_gives(run, tmp_path):
    assert run_stage("export", "--run", run, "--out", tmp_path / "e", "--formats", "onnx").returncode == 0
    frames = np.random.default_rng(0).uniform(0, 255, (1, 1, 5, 20, 31)).astype(np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "e" / "three.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"frames": frames})[0]
    assert found.shape == (1, 1, 60, 93)
    expected = hpc_vsr.load(run, device="cpu", precision="fp32").enlarge(torch.from_numpy(frames[0])).numpy()
    np.testing.assert_allclose(found[0], expected, atol=0.05)
    assert "by 3 with OpenCV's INTER_CUBIC" in (tmp_path / "e" / "README.md").read_text()


def test_networks_for_other_scales_are_refused(run, tmp_path):
    data = run.parent / "data"
    assert_refused(train_tiny(data, tmp_path / "r"), "delta enlarges 2 times, the data set is for 3 times",
                   "--degradation.scale 2, or use compact")
    assert_refused(run_stage("evaluate", "--run", run, "--twice", run), "a network for 2 times and a data set for 4")


def test_a_field_keeps_its_places_and_agrees_with_its_input(tmp_path):
    """Every third point has a coordinate of the input; latitudes fall, and longitudes cross the meridian."""
    height, width = 30, 39
    values = moving_pattern(30, 3 * height, 3 * width)[..., 0].astype(np.float32) / 64 - 2
    coarse = np.stack([degrade(frame[None], Degradation(scale=3))[0] for frame in values])
    lat, lon = 60 - 1.5 * np.arange(height), (350 + 0.75 * np.arange(width)) % 360
    described = {"lat": ("lat", lat, {"units": "degrees_north", "bounds": "lat_bnds"}),
                 "lon": ("lon", lon, {"units": "degrees_east"}),
                 "lat_bnds": (("lat", "two"), np.stack([lat + 0.75, lat - 0.75], 1))}
    xarray.Dataset({"u": (("time", "lat", "lon"), coarse, {"units": "m s-1"})}, described).to_netcdf(tmp_path / "in.nc")
    run = make_run(tmp_path, "--field", tmp_path / "in.nc", "--variable", "u")
    assert run_stage("report", run).returncode == 0
    errors = []
    for steps in (0, 4):
        done = upscale(run, tmp_path / "in.nc", tmp_path / f"{steps}.nc", "--back_projection", steps, "--stop", 5)
        assert done.returncode == 0, done.stderr
        with xarray.open_dataset(tmp_path / f"{steps}.nc") as after:
            sr = after["u"].values
            reduced = gaussian_filter(sr[2].astype(float), 3.0, truncate=4, mode="mirror")[1::3, 1::3]
            errors.append(np.abs(reduced - coarse[2]).mean())
            np.testing.assert_allclose(after["lat"], 60.5 - 0.5 * np.arange(3 * height))
            np.testing.assert_allclose(after["lat"][1::3], lat)
            np.testing.assert_allclose(np.cos(np.radians(after["lon"][1::3] - lon)), 1)
            np.testing.assert_allclose(after["lat_bnds"][3:5], [[59.25, 58.75], [58.75, 58.25]])
    assert errors[1] < 0.7 * errors[0]
    assert_in_place(sr[2], values[2])
