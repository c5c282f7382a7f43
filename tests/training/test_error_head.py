"""A network that predicts its error: calibrate, upscale --error-map, evaluate and report."""

from __future__ import annotations

import json
import shutil

import av
import cv2
import numpy as np
import pytest
import torch
from patterns import moving_pattern
from stages import assert_refused, run_stage
from trainings import TINY
from videos import write_video

from hpc_vsr.data.clips import Clips
from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.evaluation.measure_calibration import measure_calibration
from hpc_vsr.media.planes import find_format
from hpc_vsr.media.video_source import open_video
from hpc_vsr.models.error import ErrorCore, ErrorHead, error_network
from hpc_vsr.runs.error_head import load_error
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import load_trained

OPTIONS = (*TINY[4:], "--model.name", "compact", "--model.width", 8, "--model.blocks", 1,
           "--model.input", "deconvolved", "--train.patch_size", 24, "--train.batch_size", 8)
CPU = torch.device("cpu")


def train(data, out, *more):
    return run_stage("train", "--data", data, "--out", out, *OPTIONS, *more)


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    frames = moving_pattern(60, 96, 128).astype(float)
    frames[:, :, :64] = 110 + 0.1 * (frames[:, :, :64] - 128)
    frames[:, :, 64:] += 25 * random.standard_normal((60, 96, 64, 1))
    path = write_video(folder / "half.mkv", np.clip(np.rint(frames), 0, 255).astype(np.uint8), codec="ffv1")
    done = run_stage("preprocess", "--video", path, "--shards", 3, "--out", folder / "half")
    assert done.returncode == 0, done.stderr
    return folder / "half"


@pytest.fixture(scope="module")
def run(tmp_path_factory, halves):
    """A run that was calibrated, on a clip with little in its left half, and noise in its right one."""
    folder = tmp_path_factory.mktemp("run") / "sure"
    done = train(halves, folder)
    assert done.returncode == 0, done.stderr
    before = {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}
    done = run_stage("calibrate", "--run", folder, "--steps", 1000, "--device", "cpu")
    assert done.returncode == 0 and str(folder / "error-head.pt") in done.stdout, done.stderr
    assert before == {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("input") / "in.mkv", moving_pattern(8, 64, 96), codec="ffv1")


def upscale(run, source, output, error_map, *more):
    return run_stage("upscale", "--run", run, "--input", source, "--output", output, "--error-map", error_map,
                     "--precision", "fp32", *more)


def predict(run, window):
    """Return the predicted error of a (C, 5, h, w) window of grey levels."""
    trained = load_trained(RunFolder(run))
    with torch.inference_mode():
        return 255 * load_error(RunFolder(run), trained).network.upscale(window[None] / 255)[0]


def test_it_knows_where_the_errors_are(run, halves):
    trained = load_trained(RunFolder(run))
    found, = measure_calibration(load_error(RunFolder(run), trained), Clips(read_manifest(halves), "val"), CPU)
    assert found.units == "grey levels" and abs(sum(found.share) - 1) < 1e-9
    assert 0.8 < found.rms_predicted / found.rms_actual < 1.25
    assert found.actual[-1] > 2 * found.actual[0] and found.predicted == sorted(found.predicted)
    split = Clips(read_manifest(halves), "test").splits[0]
    window, hr = split.window(split.centres[0]), split.normalise(split.hr_frame(split.centres[0]))
    with torch.inference_mode():
        actual = 255 * (trained.network.upscale(window[None])[0] - hr)[0]
    predicted, rms = predict(run, 255 * window)[0], {}
    for half in (slice(8, 56), slice(72, 120)):
        rms[half.start] = [float(values[8:-8, half].square().mean().sqrt()) for values in (predicted, actual)]
        assert rms[half.start][0] == pytest.approx(rms[half.start][1], rel=0.25)
    assert rms[72][1] > 1.2 * rms[8][1], rms  # and the halves are not alike
    squares = [share * actual**2 for share, actual in zip(found.share, found.actual, strict=True)]
    assert sum(squares) ** 0.5 == pytest.approx(found.rms_actual)


def test_figures_of_errors_that_are_known():
    """Errors with the standard deviation that is predicted, of two sizes."""
    from hpc_vsr.evaluation.measure_calibration import _Sums

    random = torch.Generator().manual_seed(0)
    sums = _Sums.empty()
    for sigma in (0.01, 0.1):
        sums.add(sigma * torch.randn(100_000, generator=random, dtype=torch.float64),
                 torch.full((100_000,), sigma, dtype=torch.float64))
    found = sums.record(255.0, ..., "grey levels")
    assert found.pixels == 200_000 and found.share == [0.5, 0.5]
    assert found.predicted == pytest.approx([2.55, 25.5]) and found.actual == pytest.approx([2.55, 25.5], rel=0.01)
    assert found.within == pytest.approx([0.683, 0.954, 0.997], abs=0.003)
    assert found.rms_predicted == pytest.approx(255 * (0.01**2 / 2 + 0.1**2 / 2) ** 0.5)


def test_a_video_of_errors_is_ten_times_the_predicted_one(tmp_path, run, video):
    out, errors = tmp_path / "out.mp4", tmp_path / "errors.mkv"
    done = upscale(run, video, out, errors)
    assert done.returncode == 0 and done.stdout.split() == [str(out), str(errors)], done.stderr
    with av.open(str(errors)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "ffv1" and stream.pix_fmt == "gray"
        frames = [frame.to_ndarray() for frame in container.decode(stream)]
        assert "10 for each grey level" in container.metadata["COMMENT"]
    assert len(frames) == 8 and frames[0].shape == (128, 192)
    source = open_video(video)
    planes = find_format(source.tags.pixel_format, source.tags.full_range)
    luma = np.stack([planes.to_grey(picture[0]) for picture in source.read_planes(1, 6, planes.name)])
    expected = np.rint(np.clip(10 * predict(run, torch.from_numpy(luma)[None]).numpy()[0], 0, 255))
    assert expected.max() > expected.min() and np.abs(frames[3] - expected).max() <= 1
    # the same command has nothing to do, and the picture is that without --error-map
    done = upscale(run, video, out, errors)
    assert done.returncode == 0 and done.stderr.count("finished before") == 2
    done = run_stage("upscale", "--run", run, "--input", video, "--output", out, "--precision", "fp32")
    assert done.returncode == 0 and "finished before" in done.stderr


def test_images_of_errors(tmp_path, run):
    (tmp_path / "in").mkdir()
    frames = moving_pattern(6, 48, 64)[..., 0]
    for number, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), frame)
    done = upscale(run, tmp_path / "in", tmp_path / "out", tmp_path / "errors")
    assert done.returncode == 0, done.stderr
    found = cv2.imread(str(tmp_path / "errors" / "3.png"), cv2.IMREAD_UNCHANGED)
    window = torch.from_numpy(frames[1:6].astype(np.float32))[None]
    expected = np.rint(np.clip(10 * predict(run, window).numpy()[0], 0, 255))
    assert found.shape == (96, 128) and np.abs(found - expected).max() <= 1


def test_a_field_of_errors_is_in_its_units(tmp_path):
    xarray = pytest.importorskip("xarray")
    values = 250 + 30 * moving_pattern(60, 48, 64)[..., 0].astype(np.float32) / 255
    axes = {"time": np.arange(60), "y": np.arange(48.0), "x": np.arange(64.0)}
    named = {"units": "K", "standard_name": "air_temperature", "valid_min": np.float32(0)}
    xarray.DataArray(values, axes, ["time", "y", "x"], "tas", named).to_netcdf(tmp_path / "in.nc")
    done = run_stage("preprocess", "--field", tmp_path / "in.nc", "--variable", "tas", "--shards", 3, "--out",
                     tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert train(tmp_path / "data", tmp_path / "run").returncode == 0
    done = run_stage("calibrate", "--run", tmp_path / "run", "--steps", 40, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    done = upscale(tmp_path / "run", tmp_path / "in.nc", tmp_path / "out.nc", tmp_path / "errors.nc", "--stop", 6)
    assert done.returncode == 0, done.stderr
    with xarray.open_dataset(tmp_path / "errors.nc") as found, xarray.open_dataset(tmp_path / "out.nc") as enlarged:
        errors = found["tas_error"]
        assert "tas" not in found and errors.dims == enlarged["tas"].dims and errors.shape == (6, 96, 128)
        assert errors.attrs["units"] == "K" and errors.attrs["standard_name"] == "air_temperature standard_error"
        assert "valid_min" not in errors.attrs
        assert float(errors.min()) > 0 and float(errors.max()) < 30  # not an air temperature
        np.testing.assert_array_equal(found["x"], enlarged["x"])


def test_a_field_with_gaps_has_a_head(tmp_path):
    xarray = pytest.importorskip("xarray")
    values = moving_pattern(60, 48, 64)[..., 0].astype(np.float32)
    values[:, :12, :12] = np.nan
    axes = {"time": np.arange(60), "y": np.arange(48.0), "x": np.arange(64.0)}
    xarray.DataArray(values, axes, ["time", "y", "x"], "sst", {"units": "K"}).to_netcdf(tmp_path / "in.nc")
    done = run_stage("preprocess", "--field", tmp_path / "in.nc", "--variable", "sst", "--shards", 3, "--out",
                     tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert train(tmp_path / "data", tmp_path / "run").returncode == 0
    done = run_stage("calibrate", "--run", tmp_path / "run", "--steps", 10, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    run = RunFolder(tmp_path / "run")
    head = load_error(run, load_trained(run)).head
    assert all(value.isfinite().all() for value in head.state_dict().values())
    assert head.last.weight.abs().max() > 0  # it has learned


def test_evaluation_and_report_show_it(tmp_path, run):
    own = tmp_path / "sure"
    shutil.copytree(run, own)
    for _ in range(2):
        done = run_stage("evaluate", "--run", own)
        assert done.returncode == 0, done.stderr
    record = json.loads((own / "metrics-test.json").read_text())
    assert len(record["calibrations"]) == 1 and len(record["error_sha256"]) == 64
    assert run_stage("evaluate", "--run", own, "--split", "val").returncode == 0  # on which the head has learned
    assert "calibrations" not in json.loads((own / "metrics-val.json").read_text())
    done = run_stage("report", own, "--out", tmp_path / "report")
    assert done.returncode == 0 and "**Predicted error**" in done.stdout, done.stderr
    page = (tmp_path / "report" / "index.html").read_text()
    assert "How sure is it?" in page and "predicted error (grey levels)" in page
    assert json.loads((tmp_path / "report" / "report.json").read_text())["runs"][0]["calibrations"]


def test_what_it_cannot_do_is_refused(tmp_path, run, trained, dataset, video):
    assert_refused(upscale(trained, video, tmp_path / "out.mp4", tmp_path / "errors.mkv"), "does not predict its error",
                   "hpc_vsr.calibrate --run")
    assert_refused(upscale(run, video, tmp_path / "out.mp4", tmp_path / "errors.mp4"), "must end in .mkv")
    assert_refused(upscale(run, video, tmp_path / "out.mkv", tmp_path / "out.mkv"), "is the --output")
    (tmp_path / "mine.mkv").write_bytes(b"something else")
    for path, why in (("mine.mkv", "exists and is not what this command makes"), ("no/errors.mkv", "--error-map")):
        for more in ((), ("--dry-run",)):
            assert_refused(upscale(run, video, tmp_path / "out.mp4", tmp_path / path, *more), why)
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged)
    (damaged / "error-head.pt").write_bytes(b"no head")
    assert_refused(upscale(damaged, video, tmp_path / "out.mp4", tmp_path / "errors.mkv"), "error-head.pt: is damaged")
    assert not list(tmp_path.glob("out*"))
    assert_refused(run_stage("calibrate", "--run", run, "--steps", 0), "--steps: must be at least 1")
    assert_refused(run_stage("calibrate", "--run", run, "--data", dataset), "was trained on another data set")
    assert_refused(run_stage("calibrate", "--run", tmp_path), "name the folder of a training run")


def test_a_head_of_other_weights_is_refused(tmp_path, halves, run, video):
    other = tmp_path / "other"
    assert train(halves, other, "--train.seed", 1).returncode == 0
    for path in run.glob("error-head.pt*"):
        shutil.copy(path, other)
    assert_refused(upscale(other, video, tmp_path / "out.mp4", tmp_path / "errors.mkv"),
                   "was trained for other weights")


@pytest.mark.parametrize("more", [("--train.sigma", "0..3", "--train.noise", "0..4"), ("--model.align", "true")])
def test_a_head_follows_what_the_network_sees(tmp_path, dataset, video, more):
    folder = tmp_path / "run"
    done = train(dataset, folder, *more)
    assert done.returncode == 0, done.stderr
    done = run_stage("calibrate", "--run", folder, "--steps", 3, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    done = upscale(folder, video, tmp_path / "out.mp4", tmp_path / "errors.mkv")
    assert done.returncode == 0 and (tmp_path / "errors.mkv").exists(), done.stderr
    assert done.stderr.count("taken as blurred") == ("--train.sigma" in more)  # measured once


@pytest.mark.compute
def test_tiles_give_the_same_errors(run):
    trained = load_trained(RunFolder(run))
    network = load_error(RunFolder(run), trained).network
    window = torch.rand(1, 1, 5, 70, 90)
    with torch.inference_mode():
        torch.testing.assert_close(network.upscale(window, tile=32), network.upscale(window, tile=0), rtol=1e-4,
                                   atol=1e-6)


@pytest.mark.compute
@pytest.mark.parametrize("channels, scale, frames", [(1, 2, 5), (3, 3, 1), (2, 4, 3)])
def test_the_head_gives_an_error_for_each_value(channels, scale, frames):
    head = ErrorHead(channels, scale, frames)
    seen, made = torch.rand(2, channels, frames, 12, 14), torch.rand(2, channels, scale * 10, scale * 12)
    out = head(seen, made)
    assert out.shape == made.shape and torch.all(out == 0.01)  # the first guess
    torch.nn.init.normal_(head.last.weight)
    assert head(seen, made).min() > 0


def test_the_weights_of_the_network_stay(run):
    trained = load_trained(RunFolder(run))
    network = error_network(trained.network, load_error(RunFolder(run), trained).head)
    assert isinstance(network.core, ErrorCore) and network.core.core is trained.network.core and network.skip is None
