"""A collection from training to the report: a row for each clip and for all."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from patterns import moving_pattern
from stages import assert_refused, run_stage
from trainings import assert_equal_to_the_bit, records, train_tiny
from videos import write_video

pytestmark = pytest.mark.slow
SIZES = {"b1": (26, 48, 64), "b2": (22, 40, 56), "b10": (20, 64, 48)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name, size in SIZES.items():
        write_video(folder / f"{name}.mp4", moving_pattern(*size))
    for by in ("time", "clip"):
        done = run_stage("preprocess", "--video", folder / "*.mp4", "--shards", 3, "--split.by", by,
                         "--out", folder / by)
        assert done.returncode == 0, done.stderr
    for done in (train_tiny(folder / "time", folder / "run"), run_stage("evaluate", "--run", folder / "run"),
                 run_stage("report", folder / "run", "--out", folder / "report")):
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    return json.loads((folder / "report" / "report.json").read_text())["rows"]


def test_each_clip_and_all_of_them_have_a_row(folder, rows):
    found = {(row["method"], row["profile"], row.get("clip")) for row in rows}
    assert found == {(method, profile, clip) for method in ("bicubic", "wiener", "run") for profile in ("paper", "sr")
                     for clip in (None, *SIZES)} and len(rows) == len(found)
    for whole in (row for row in rows if "clip" not in row):
        own = [row for row in rows if "clip" in row and all(row[key] == whole[key] for key in ("method", "profile"))]
        for key in ("mse", "psnr", "ssim"):
            frames = np.concatenate([row["per_frame"][key] for row in own])
            assert whole[key] == pytest.approx(frames.mean()) and whole["frames"] == len(frames)
        assert "per_frame" not in whole
    # whoever reads the table finds each clip
    with (folder / "report" / "metrics.csv").open() as file:
        assert {line["clip"] for line in csv.DictReader(file)} == {"", *SIZES}
    text, page = (folder / "report" / "report.md").read_text(), (folder / "report" / "index.html").read_text()
    assert all(f"| {clip} " in text and f"<td class=\"text\">{clip}</td>" in page for clip in SIZES)


def test_the_rows_of_a_clip_are_those_of_its_own_data_set(folder, rows, tmp_path):
    """Bicubic enlargement knows nothing of the other clips."""
    for clip in SIZES:
        alone = tmp_path / clip
        assert run_stage("preprocess", "--video", folder / f"{clip}.mp4", "--shards", 3, "--out", alone).returncode == 0
        done = run_stage("evaluate", "--run", folder / "run", "--data", alone)
        assert done.returncode == 0, done.stderr
        for own in json.loads((folder / "run" / "metrics-test.json").read_text())["rows"]:
            if own["method"] == "bicubic":
                row = next(row for row in rows if (row["method"], row["profile"], row.get("clip")) == (
                    "bicubic", own["profile"], clip))
                assert {key: row[key] for key in ("frames", "mse", "psnr", "ssim", "tof", "per_frame") if key in own
                        } == {key: own[key] for key in ("frames", "mse", "psnr", "ssim", "tof", "per_frame")
                              if key in own}
    assert run_stage("evaluate", "--run", folder / "run").returncode == 0


def test_a_split_by_clip_is_measured_on_its_clips_only(folder, tmp_path):
    content = json.loads((folder / "clip" / "dataset.json").read_text())
    test = {clip["name"] for clip in content["clips"] if "test" in clip["splits"]}
    for done in (train_tiny(folder / "clip", tmp_path / "run"), run_stage("evaluate", "--run", tmp_path / "run")):
        assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "run" / "metrics-test.json").read_text())["rows"]
    assert {row["clip"] for row in rows if "clip" in row} == test and test < set(SIZES)


def test_validation_counts_all_frames_of_all_clips(folder):
    found = [record["validation"]["frames"] for record in records(folder / "run") if "validation" in record]
    content = json.loads((folder / "time" / "dataset.json").read_text())
    assert set(found) == {sum(shard["samples"] for clip in content["clips"] for shard in clip["shards"]
                              if shard["split"] == "val")}


def test_frames_in_memory_and_in_shards_train_the_same_network(folder, tmp_path):
    done = train_tiny(folder / "time", tmp_path / "run", "--train.resident", "never")
    assert done.returncode == 0, done.stderr
    assert_equal_to_the_bit(folder / "run", tmp_path / "run")


def test_whole_frames_of_different_sizes_and_a_number_of_frames_are_refused(folder, tmp_path):
    for words, told in ((("--train.patch_size", 0), "frames of 3 sizes"),
                        (("--train.num_frames", 5), "is a collection"),
                        (("--train.patch_size", 24), "smallest frames have, 28x20")):
        assert_refused(train_tiny(folder / "time", tmp_path / "run", *words), words[0].removeprefix("--"), told)
