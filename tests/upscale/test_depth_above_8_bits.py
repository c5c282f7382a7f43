"""16-bit images through all stages: the data set, the training, its evaluation, and the upscaling of any depth."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from patterns import moving_pattern
from stages import run_stage
from trainings import train_tiny
from upscaling import upscale

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.samples import Split
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import load_trained

NUM_FRAMES = 24


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    """(T, H, W) of 16 bits; neighbouring values differ by fractions of a grey level."""
    gray = moving_pattern(NUM_FRAMES, 48, 64)[..., 1].astype(np.float64)
    noise = np.random.default_rng(0).uniform(0, 1, gray.shape)
    return np.rint((gray + noise) * 65535 / 256).astype(np.uint16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("deep")
    for index, image in enumerate(values):
        cv2.imwrite(str(folder / f"{index}.png"), image)
    return folder


@pytest.fixture(scope="module")
def deep_run(tmp_path_factory, folder):
    """A run on these images, measured."""
    place = tmp_path_factory.mktemp("deep_run")
    for done in (run_stage("preprocess", "--frames", folder, "--shards", 3, "--out", place / "data"),
                 train_tiny(place / "data", place / "run"), run_stage("evaluate", "--run", place / "run")):
        assert done.returncode == 0, done.stderr
    return place / "run"


def test_the_data_set_has_grey_levels_with_fractions(deep_run, values):
    manifest = read_manifest(deep_run.parent / "data")
    assert (manifest.units, manifest.offset, manifest.extent) == ("grey levels", 0, 255)
    assert (manifest.is_grey, manifest.is_8bit, manifest.bits, manifest.info.dtype) == (True, False, 16, "float32")
    split = Split(manifest, "train")
    np.testing.assert_allclose(split.hr_frame(split.start)[0], values[split.start] * (255 / 65535), rtol=1e-6)
    low = cv2.resize(cv2.GaussianBlur(values[0].astype(np.float64), (0, 0), 3), (32, 24),
                     interpolation=cv2.INTER_CUBIC) * (255 / 65535)
    np.testing.assert_allclose(split.lr_frames(0, 1)[0, 0], low, atol=1e-2)


def test_it_is_measured_against_255_and_without_rounding(deep_run):
    rows = json.loads((deep_run / "metrics-test.json").read_text())["rows"]
    assert {row["profile"] for row in rows} == {"paper", "sr"}
    with np.load(deep_run / "pictures-test.npz") as pictures:
        error = np.mean((pictures["bicubic"][0, 0, 2:-2, 2:-2].astype(float).clip(0, 255)
                         - pictures["hr"][0, 0, 2:-2, 2:-2]) ** 2)
        frame = int(pictures["frame"][0])
    row = next(row for row in rows if row["method"] == "bicubic" and row["profile"] == "paper")
    figures = {key: row["per_frame"][key][row["per_frame"]["frame"].index(frame)] for key in ("mse", "psnr")}
    assert figures["mse"] == pytest.approx(error, rel=1e-6)
    assert figures["psnr"] == pytest.approx(10 * np.log10(255**2 / error), rel=1e-6)


def test_the_run_remembers_its_kind_and_is_reported(deep_run):
    terms = load_trained(RunFolder(deep_run)).terms
    assert (terms.for_video, terms.bits, terms.rounding_shows) == (True, 16, True)
    done = run_stage("report", deep_run)
    assert done.returncode == 0, done.stderr
    assert "full range, not rounded" in (deep_run / "report" / "report.md").read_text()


def test_it_upscales_16_and_8_bit_images_alike(deep_run, folder, values, tmp_path):
    (tmp_path / "low").mkdir()
    eight = np.rint(values / 257).astype(np.uint8)
    (tmp_path / "same").mkdir()
    for index in range(6):
        cv2.imwrite(str(tmp_path / "low" / f"{index}.png"), eight[index])
        cv2.imwrite(str(tmp_path / "same" / f"{index}.png"), eight[index].astype(np.uint16) * 257)
    for name in ("low", "same"):
        done = upscale(deep_run, tmp_path / name, tmp_path / f"{name}2")
        assert done.returncode == 0, done.stderr
    low, deep = (cv2.imread(str(tmp_path / f"{name}2" / "2.png"), cv2.IMREAD_UNCHANGED) for name in ("low", "same"))
    assert (low.dtype, deep.dtype, low.shape) == (np.uint8, np.uint16, (96, 128))
    np.testing.assert_allclose(deep / 257, low, atol=0.501)  # the same grey levels, before they are rounded
    assert len(np.unique(deep)) > 10 * len(np.unique(low))
