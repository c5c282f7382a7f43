"""Evaluation: the figures are right."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from patterns import moving_pattern
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from stages import run_stage
from trainings import train_tiny
from videos import write_video

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.samples import Split

pytestmark = pytest.mark.slow


def row_of(evaluation, method, profile):
    return next(row for row in evaluation["rows"] if (row["method"], row["profile"]) == (method, profile))


def test_the_bicubic_row_is_what_opencv_and_scikit_image_give(dataset, evaluation):
    split = Split(read_manifest(dataset), "test")
    row = row_of(evaluation, "bicubic", "paper")
    assert row["frames"] == len(split) == 4 and row["per_frame"]["frame"] == list(split.centres)
    for index, centre in enumerate(split.centres):
        lr, hr = split.lr_frames(centre, centre + 1)[0, 0].numpy(), split.hr_frame(centre)[0].numpy()
        sr = cv2.resize(lr.astype(np.float32), (64, 48), interpolation=cv2.INTER_CUBIC)
        sr = np.clip(np.rint(sr), 0, 255).astype(np.uint8)
        pair = hr[2:-2, 2:-2], sr[2:-2, 2:-2]
        assert row["per_frame"]["psnr"][index] == pytest.approx(peak_signal_noise_ratio(*pair), abs=2e-3)
        assert row["per_frame"]["ssim"][index] == pytest.approx(structural_similarity(*pair), abs=2e-4)


def test_means_and_pooled_values_follow_from_the_frames(evaluation):
    assert len(evaluation["rows"]) == 6
    for row in evaluation["rows"]:
        frames = row["per_frame"]
        assert row["mse"] == pytest.approx(np.mean(frames["mse"]))
        assert row["psnr"] == pytest.approx(np.mean(frames["psnr"]))
        assert row["ssim"] == pytest.approx(np.mean(frames["ssim"]))
        assert row["psnr_pooled"] == pytest.approx(10 * np.log10(255**2 / np.mean(frames["mse"])))
        assert row["psnr_pooled"] <= row["psnr"] + 1e-9
        assert {"tof", "warp_error", "seconds_per_frame"} <= row.keys()


def test_wiener_beats_bicubic_and_the_network_starts_from_it(evaluation):
    bicubic, wiener, network = (row_of(evaluation, name, "paper")["psnr"] for name in ("bicubic", "wiener", "tiny"))
    assert wiener > bicubic + 1
    assert network == pytest.approx(wiener, abs=1)
    assert row_of(evaluation, "tiny", "paper")["params"] == 83702


def test_evaluating_again_gives_the_same_figures(trained, evaluation, tmp_path):
    copy = tmp_path / "tiny"
    shutil.copytree(trained, copy)
    assert run_stage("evaluate", "--run", copy).returncode == 0
    again = json.loads((copy / "metrics-test.json").read_text())
    for row, other in zip(again["rows"], evaluation["rows"], strict=True):
        assert {**row, "seconds_per_frame": 0} == {**other, "seconds_per_frame": 0}


def test_frames_that_are_black_throughout_do_not_hide_the_others(tmp_path):
    frames = moving_pattern(40, 48, 64)
    frames[36:] = 0
    clip = write_video(tmp_path / "fade.mp4", frames)
    assert run_stage("preprocess", "--video", clip, "--shards", 3, "--out", tmp_path / "d").returncode == 0
    assert train_tiny(tmp_path / "d", tmp_path / "r", "--train.steps", 2).returncode == 0
    done = run_stage("evaluate", "--run", tmp_path / "r")
    assert done.returncode == 0 and "nan" not in done.stdout.lower(), done.stderr
    row = row_of(json.loads((tmp_path / "r" / "metrics-test.json").read_text()), "bicubic", "paper")
    finite = [value for value in row["per_frame"]["psnr"] if value is not None]
    assert row["exact_frames"] == row["frames"] - len(finite) > 0
    assert row["psnr"] == pytest.approx(np.mean(finite))
    assert run_stage("report", tmp_path / "r").returncode == 0


def test_another_split_and_precision_can_be_measured(trained, dataset, tmp_path):
    copy = tmp_path / "tiny"
    shutil.copytree(trained, copy)
    done = run_stage("evaluate", "--run", copy, "--data", dataset, "--split", "val", "--precision", "bf16")
    assert done.returncode == 0, done.stderr
    assert json.loads((copy / "metrics-val.json").read_text())["precision"] == "bf16"


def test_frames_reduced_without_a_blur_are_trained_on_and_measured(clip, tmp_path):
    """Without a blur there is nothing for Wiener's filter to undo: its rows are those of bicubic enlargement."""
    data, run = tmp_path / "data", tmp_path / "run"
    for done in (run_stage("preprocess", "--video", clip, "--shards", 5, "--out", data, "--degradation.kind", "BI"),
                 train_tiny(data, run, "--model.input", "deconvolved"),
                 run_stage("evaluate", "--run", run)):
        assert done.returncode == 0, done.stderr
    found = json.loads((run / "metrics-test.json").read_text())
    bicubic, wiener, network = (row_of(found, name, "paper") for name in ("bicubic", "wiener", "run"))
    assert wiener["psnr"] == pytest.approx(bicubic["psnr"])
    assert network["psnr"] == pytest.approx(bicubic["psnr"], abs=1)
