"""A training for a range of blurs, and an upscaling with it."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from patterns import moving_pattern
from stages import assert_refused, run_stage
from trainings import final_weights, train_tiny
from videos import write_video

import hpc_vsr
from hpc_vsr.data.blurred import degradation_of
from hpc_vsr.data.degrade import degrade
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import load_trained
from hpc_vsr.system.errors import InputError

SMOOTH = 0.9  # the blur that the pattern seems to have itself, in its pixels
RANGE = ("--train.sigma", "0..3", "--model.input", "deconvolved")


@pytest.fixture(scope="module")
def run(tmp_path_factory, dataset):
    folder = tmp_path_factory.mktemp("run") / "blurs"
    done = train_tiny(dataset, folder, *RANGE)
    assert done.returncode == 0 and "blurs of 0..3 HR pixels" in done.stderr, done.stderr
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Videos whose frames were reduced with blurs of 0, 1.5 and 3 pixels."""
    folder, hr = tmp_path_factory.mktemp("inputs"), moving_pattern(8, 192, 256)
    paths = {}
    for sigma in (0.0, 1.5, 3.0):
        frames = [degrade(frame.transpose(2, 0, 1), degradation_of(sigma, 2)).transpose(1, 2, 0) for frame in hr]
        paths[sigma] = write_video(folder / f"{sigma}.mkv", np.stack(frames), codec="ffv1")
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


def test_it_serves_every_blur_with_the_same_weights(run):
    trained = load_trained(RunFolder(run))
    assert trained.terms.blurs.sigmas[0] == 0 and trained.terms.blurs.sigmas[-1] == 3 and trained.terms.sigma == 3
    sharp = trained.at(0.7)
    assert sharp.terms.sigma == 0.7 and sharp.network.reach < trained.network.reach
    for name, weight in trained.network.named_parameters():
        assert torch.equal(weight, sharp.network.get_parameter(name))
    filters = sharp.terms.build(sharp.settings).state_dict()
    for name in ("skip.kernels", "sharpen.kernels"):
        assert torch.equal(sharp.network.state_dict()[name], filters[name])
    with pytest.raises(InputError, match="trained for blurs of 0 to 3 pixels of its output, found 3.5"):
        trained.at(3.5)


def test_a_network_for_the_blur_of_the_input_is_better_than_one_for_another(run):
    hr = moving_pattern(8, 96, 128)[..., :1].transpose(0, 3, 1, 2)
    errors = {}
    for blur in (0.0, 1.5, 3.0):
        lr = np.stack([degrade(frame, degradation_of(blur, 2)) for frame in hr])
        for sigma in (0.0, 1.5, 3.0):
            out = hpc_vsr.load(run, "cpu", "fp32", sigma=sigma).upscale(lr).astype(float)
            errors[blur, sigma] = np.square(out - hr)[..., 8:-8, 8:-8].mean()
        assert min((0.0, 1.5, 3.0), key=lambda sigma, blur=blur: errors[blur, sigma]) == blur, errors


def upscale(run, source, output, *more):
    return run_stage("upscale", "--run", run, "--input", source, "--output", output, "--precision", "fp32", *more)


@pytest.mark.parametrize("blur", [0.0, 1.5, 3.0])
def test_upscale_measures_the_blur_and_says_so(tmp_path, run, inputs, blur):
    done = upscale(run, inputs[blur], tmp_path / "out.mp4")
    assert done.returncode == 0, done.stderr
    found, = re.findall(r"taken as blurred by (\S+) pixels of the output \(measured", done.stderr)
    assert abs(float(found) - np.hypot(blur, SMOOTH)) < 0.5
    assert "looks blurred" not in done.stderr
    again = upscale(run, inputs[blur], tmp_path / "out.mp4")
    assert again.returncode == 0 and "finished before" in again.stderr


def test_a_given_blur_is_taken_and_one_outside_is_refused(tmp_path, run, inputs):
    done = upscale(run, inputs[3.0], tmp_path / "out.mp4", "--sigma", 2.5)
    assert done.returncode == 0 and "measured" not in done.stderr
    assert_refused(upscale(run, inputs[3.0], tmp_path / "out.mp4", "--sigma", 2), "exists and is not what this command")
    assert_refused(upscale(run, inputs[3.0], tmp_path / "far.mp4", "--sigma", 4), "blurs of 0 to 3 pixels", "found 4")
    assert not (tmp_path / "far.mp4").exists()


def test_a_network_of_one_blur_takes_no_other(tmp_path, trained, inputs):
    assert_refused(upscale(trained, inputs[1.5], tmp_path / "out.mp4", "--sigma", 1.5), "was trained for one blur",
                   "train.sigma")


@pytest.mark.parametrize("more, words", [
    (("--train.sigma", "3"), ["train.sigma", "LOW..HIGH", "found 3"]),
    (("--train.sigma", "0..2"), ["train.sigma", "0..2 has no place for the blur of", "3, which the validation"]),
    (("--train.sigma", "0..3", "--model.align", "true"), ["train.sigma", "model.align"])])
def test_what_it_cannot_do_is_refused(tmp_path, dataset, more, words):
    assert_refused(train_tiny(dataset, tmp_path / "run", *more), *words)
    assert not (tmp_path / "run").exists()


def test_it_is_measured_with_the_blur_of_the_data(tmp_path, clip, run, trained):
    """On data of another blur than that of its training; a network of one blur is measured as it is, with a warning."""
    for sigma, where in ((1, "near"), (5, "far")):
        done = run_stage("preprocess", "--video", clip, "--shards", 3, "--degradation.sigma", sigma, "--out",
                         tmp_path / where)
        assert done.returncode == 0, done.stderr
    own, other = tmp_path / "own", tmp_path / "other"
    shutil.copytree(run, own)
    shutil.copytree(trained, other)
    found = {}
    for folder in (own, other):
        done = run_stage("evaluate", "--run", folder, "--data", tmp_path / "near")
        assert done.returncode == 0, done.stderr
        assert ("was trained for a blur of 3 pixels, and the data set has 1" in done.stderr) == (folder == other)
        rows = json.loads((folder / "metrics-test.json").read_text())["rows"]
        found[folder] = {row["method"]: row["psnr"] for row in rows if row["profile"] == "paper"}
    assert abs(found[own]["own"] - found[own]["wiener"]) < 1 < found[other]["wiener"] - found[other]["other"]
    assert_refused(run_stage("evaluate", "--run", own, "--data", tmp_path / "far"), "blurs of 0 to 3 pixels", "found 5")


def test_a_begun_run_keeps_its_range(tmp_path, dataset, run):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    assert_refused(train_tiny(dataset, copy, *RANGE, "--train.sigma", "0..4"), "train.sigma is ")


def test_an_exported_network_is_for_one_blur(tmp_path, run):
    done = run_stage("export", "--run", run, "--out", tmp_path / "out", "--formats", "pt2", "--sigma", 1.5)
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "out" / "README.md").read_text()
    assert "a Gaussian blur of 1.5 pixels" in card and "blurs of 0 to 3 pixels" in card
