"""A training for noisy recordings, and an upscaling with it."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import torch
from patterns import moving_pattern
from repository import SAMPLE
from stages import assert_refused, run_stage
from trainings import final_weights, train_tiny
from videos import write_video

import hpc_vsr
from hpc_vsr.data.blurred import degradation_of
from hpc_vsr.data.degrade import degrade
from hpc_vsr.media.video_source import open_video
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import load_trained
from hpc_vsr.system.errors import InputError

RANGE = ("--train.sigma", "0..3", "--train.noise", "0..6", "--model.input", "deconvolved")


@pytest.fixture(scope="module")
def run(tmp_path_factory, dataset):
    folder = tmp_path_factory.mktemp("run") / "noise"
    done = train_tiny(dataset, folder, *RANGE)
    assert done.returncode == 0 and "blurs of 0..3 HR pixels, noise of 0..6 grey levels" in done.stderr, done.stderr
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Videos of frames of the bundled clip, reduced with a blur of 3 pixels; noise of 0, 3 and 6 grey levels."""
    folder, random = tmp_path_factory.mktemp("inputs"), np.random.default_rng(0)
    hr = [frame for frame, _ in open_video(SAMPLE).read(0, 8)]
    lr = np.stack([degrade(np.ascontiguousarray(frame), degradation_of(3.0, 2)) for frame in hr])
    lr = lr.transpose(0, 2, 3, 1).repeat(3, -1)
    paths = {}
    for noise in (0.0, 3.0, 6.0):
        grey = noise * random.standard_normal((*lr.shape[:3], 1))  # as strong in luma
        paths[noise] = write_video(folder / f"{noise}.mkv", np.clip(np.round(lr + grey), 0, 255).astype(np.uint8),
                                   codec="ffv1")
    return paths


def test_resumed_from_the_shards_it_is_the_uninterrupted_one_in_memory(tmp_path, dataset, run):
    half = tmp_path / "half"
    shutil.copytree(run, half)
    for path in (half / "checkpoints").glob("step-*6.pt*"):
        path.unlink()
    done = train_tiny(dataset, half, *RANGE, "--train.resident", "never")
    assert done.returncode == 0 and "resumed at step 4" in done.stderr, done.stderr
    ours, theirs = final_weights(half), final_weights(run)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_more_noise_is_filtered_more_with_the_same_weights(run):
    trained = load_trained(RunFolder(run))
    assert trained.terms.blurs.camera_noise == [0, 2, 4, 6] and trained.terms.most_noise == 6
    powers = [trained.at(3.0, noise).terms.noise for noise in (0, 3, 6)]
    assert powers == sorted(powers) and powers[-1] > 10 * powers[0]
    for name, weight in trained.network.named_parameters():
        assert torch.equal(weight, trained.at(3.0, 6).network.get_parameter(name))
    with pytest.raises(InputError, match="trained for noise of 0 to 6 grey levels, found 7"):
        trained.at(3.0, 7)


def test_a_network_for_the_noise_of_the_input_is_better_than_one_for_another(run):
    hr, random = moving_pattern(8, 96, 128)[..., :1].transpose(0, 3, 1, 2), np.random.default_rng(0)
    errors = {}
    for noise in (0.0, 6.0):
        lr = np.stack([degrade(frame, degradation_of(3.0, 2)) for frame in hr])
        lr = np.clip(np.round(lr + noise * random.standard_normal(lr.shape)), 0, 255).astype(np.uint8)
        for taken in (0.0, 6.0):
            out = hpc_vsr.load(run, "cpu", "fp32", sigma=3.0, noise=taken).upscale(lr).astype(float)
            errors[noise, taken] = np.square(out - hr)[..., 8:-8, 8:-8].mean()
    assert errors[0, 0] < errors[0, 6] and errors[6, 6] < errors[6, 0] / 2, errors


def upscale(run, source, output, *more):
    return run_stage("upscale", "--run", run, "--input", source, "--output", output, "--precision", "fp32", *more)


@pytest.mark.parametrize("noise", [0.0, 3.0, 6.0])
def test_upscale_measures_the_noise_and_says_so(tmp_path, run, inputs, noise):
    done = upscale(run, inputs[noise], tmp_path / "out.mp4")
    assert done.returncode == 0, done.stderr
    found, = re.findall(r" and noisy by (\S+) grey levels \(measured", done.stderr)
    assert abs(float(found) - noise) < 0.2 + 0.05 * noise
    again = upscale(run, inputs[noise], tmp_path / "out.mp4")
    assert again.returncode == 0 and "finished before" in again.stderr


def test_a_given_noise_is_taken_and_one_outside_is_refused(tmp_path, run, inputs):
    done = upscale(run, inputs[3.0], tmp_path / "out.mp4", "--sigma", 3, "--noise", 2.5)
    assert done.returncode == 0 and "measured" not in done.stderr
    assert_refused(upscale(run, inputs[3.0], tmp_path / "far.mp4", "--noise", 8), "noise of 0 to 6 grey levels",
                   "found 8")
    assert_refused(upscale(run, inputs[3.0], tmp_path / "far.mp4", "--noise", -1), "--noise: must be 0 to 25")
    assert not (tmp_path / "far.mp4").exists()


def test_a_network_without_noise_takes_none(tmp_path, trained, inputs):
    assert_refused(upscale(trained, inputs[3.0], tmp_path / "out.mp4", "--noise", 3), "was trained for frames without "
                   "noise", "train.noise")


def test_a_network_without_noise_warns_of_a_noisy_input(tmp_path, trained, inputs):
    for noise in (0.0, 6.0):
        done = upscale(trained, inputs[noise], tmp_path / f"{noise}.mp4")
        assert done.returncode == 0 and ("looks noisy (5." in done.stderr) == (noise == 6.0), done.stderr


def test_noise_may_be_the_only_range(tmp_path, dataset, inputs):
    folder = tmp_path / "run"
    done = train_tiny(dataset, folder, "--train.noise", "0..6")
    assert done.returncode == 0 and "blurs of" not in done.stderr, done.stderr
    done = upscale(folder, inputs[6.0], tmp_path / "out.mp4")
    assert done.returncode == 0 and "taken as noisy by" in done.stderr and "blurred" not in done.stderr, done.stderr
    assert_refused(upscale(folder, inputs[6.0], tmp_path / "far.mp4", "--sigma", 2), "was trained for one blur")


@pytest.mark.parametrize("more, words", [
    (("--train.noise", "4"), ["train.noise", "LOW..HIGH", "found 4"]),
    (("--train.noise", "1..4"), ["train.noise", "must begin at 0"]),
    (("--train.noise", "0..4", "--model.align", "true"), ["train.noise", "model.align"])])
def test_what_it_cannot_do_is_refused(tmp_path, dataset, more, words):
    assert_refused(train_tiny(dataset, tmp_path / "run", *more), *words)
    assert not (tmp_path / "run").exists()


def test_a_field_has_no_grey_levels(tmp_path):
    xarray = pytest.importorskip("xarray")
    values = moving_pattern(40, 48, 64)[..., 0].astype(np.float32) / 255
    axes = {"time": np.arange(40), "y": np.arange(48), "x": np.arange(64)}
    xarray.DataArray(values, axes, ["time", "y", "x"], "speed", {"units": "m/s"}).to_netcdf(tmp_path / "field.nc")
    done = run_stage("preprocess", "--field", tmp_path / "field.nc", "--variable", "speed", "--shards", 3, "--out",
                     tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert_refused(train_tiny(tmp_path / "data", tmp_path / "run", "--train.noise", "0..4"), "train.noise",
                   "grey levels")


def test_an_exported_network_is_for_one_noise(tmp_path, run):
    done = run_stage("export", "--run", run, "--out", tmp_path / "out", "--formats", "pt2", "--noise", 3)
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "out" / "README.md").read_text()
    assert "white noise of 0 to 6 grey levels" in card and "fixed filters are for 3 " in card
