"""Curves in TensorBoard's format: they are those of metrics.jsonl, once each, also after a training was resumed."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import structural_similarity
from stages import torchrun
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util
from trainings import TINY, assert_equal_to_the_bit, records, train_tiny

import hpc_vsr
from hpc_vsr import train
from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.samples import Split
from hpc_vsr.system.errors import exit_status

ON = ("--train.tensorboard", "true")


def read_points(run: Path) -> dict[str, list[tuple[int, float]]]:
    """All points of all event files, {curve: [(step, value), ...]}, as they are in the files."""
    found: dict[str, list] = {}
    for path in sorted((run / "tensorboard").iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, tensor_util.make_ndarray(value.tensor).item()))
    return found


def assert_as_in_the_history(run: Path) -> None:
    points, lines = read_points(run), records(run)
    wanted = {"training/loss": [(line["step"], line["loss"]) for line in lines if "loss" in line],
              "training/learning rate": [(line["step"], line["lr"]) for line in lines if "loss" in line],
              "training/steps per second": [(line["step"], line["samples_per_second"] / 4) for line in lines
                                            if "loss" in line],
              "validation/PSNR": [(line["step"], line["validation"]["psnr"]) for line in lines if "validation" in line],
              "validation/SSIM": [(line["step"], line["validation"]["ssim"]) for line in lines if "validation" in line]}
    assert points.keys() == wanted.keys()
    for name, curve in wanted.items():
        assert [step for step, _ in points[name]] == [step for step, _ in curve], name
        np.testing.assert_allclose([value for _, value in points[name]], [value for _, value in curve], rtol=1e-6)


@pytest.fixture(scope="module")
def watched(tmp_path_factory, dataset) -> Path:
    run = tmp_path_factory.mktemp("watched") / "run"
    done = train_tiny(dataset, run, *ON)
    assert done.returncode == 0, done.stderr
    return run


def test_the_curves_are_those_of_the_history_and_nothing_else_changes(watched, trained):
    assert_as_in_the_history(watched)
    assert_equal_to_the_bit(watched, trained)
    assert not (trained / "tensorboard").exists()
    assert not any("ssim" in line.get("validation", {}) for line in records(trained))


def test_the_ssim_is_that_of_the_validated_frame(watched, dataset):
    split = Split(read_manifest(dataset), "val")
    window = split.window(split.centres[0]).numpy()[0]  # (5, h, w), 0..1
    sr = hpc_vsr.load(watched, device="cpu", precision="fp32").upscale(window)[2]
    hr = split.hr_frame(split.centres[0]).numpy()[0] / np.float32(255)
    found = [line["validation"] for line in records(watched) if "validation" in line]
    best = max(found, key=lambda validation: validation["psnr"])  # `load` takes the weights of that step
    ssim = structural_similarity(sr[2:-2, 2:-2], hr[2:-2, 2:-2], data_range=1.0)
    assert best["frames"] == 1 and best["ssim"] == pytest.approx(ssim, abs=1e-4)


def test_a_resumed_run_has_no_point_twice(dataset, tmp_path):
    run = tmp_path / "r"
    assert train_tiny(dataset, run).returncode == 0
    for path in run.glob("checkpoints/step-00000006*"):
        path.unlink()
    for _ in range(2):  # the option may come later, and a second start replaces the file of the first
        assert train_tiny(dataset, run, *ON).returncode == 0
    points = read_points(run)
    assert [step for step, _ in points["training/loss"]] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in points["validation/PSNR"]] == [3, 6]
    assert [step for step, _ in points["validation/SSIM"]] == [6]  # that of step 3 was not measured
    assert not any(math.isnan(value) for curve in points.values() for _, value in curve)


@pytest.mark.slow
def test_only_the_main_rank_writes(dataset, tmp_path):
    done = train_tiny(dataset, tmp_path / "r", *ON, launcher=torchrun(2))
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "r" / "tensorboard").iterdir())) == 1
    assert_as_in_the_history(tmp_path / "r")


def test_without_the_package_it_is_refused(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for more in ((), ("--dry-run",)):
        words = ["--data", dataset, "--out", tmp_path / "r", *TINY, *ON, *more]
        assert exit_status(train.main, [str(word) for word in words]) == 2
        assert "pip install hpc-vsr[tensorboard]" in capsys.readouterr().err
    assert not (tmp_path / "r" / "config.json").exists()
