"""The report shows what was recorded."""

from __future__ import annotations

import csv
import json
import re
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import xarray
from files import rewrite
from patterns import moving_pattern
from stages import assert_refused, run_stage
from trainings import train_tiny

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.samples import Split
from hpc_vsr.report import pictures
from hpc_vsr.report.pictures import busiest_square

pytestmark = pytest.mark.slow


def test_a_network_measured_on_foreign_data_is_not_called_unseen(clip, trained, report, tmp_path):
    assert "which no network has seen" in (report / "report.md").read_text()
    other, copy = tmp_path / "d", tmp_path / "tiny"
    shutil.copytree(trained, copy)
    made = run_stage("preprocess", "--video", clip, "--shards", 5, "--split.train", 0.5, "--split.test", 0.4,
                     "--out", other)
    assert made.returncode == 0
    assert run_stage("evaluate", "--run", copy, "--data", other).returncode == 0
    assert run_stage("report", copy).returncode == 0
    text = (copy / "report" / "report.md").read_text()
    assert "no network has seen" not in text and "tiny was trained on another data set" in text


def test_runs_with_pictures_of_other_frames_can_be_compared(dataset, trained, tmp_path):
    second = tmp_path / "second"
    assert train_tiny(dataset, second, "--train.steps", 2, "--evaluate.pictures", 1).returncode == 0
    assert run_stage("evaluate", "--run", second).returncode == 0
    for runs in ((trained, second), (second, trained)):
        assert run_stage("report", *runs, "--out", tmp_path / "r").returncode == 0


@pytest.mark.parametrize(("scale", "sizes"), [(2, (16, 60)), (3, (18, 60)), (4, (16, 60))])
def test_the_zoomed_square_consists_of_whole_lr_pixels(scale, sizes):
    for height, width, expected in ((24, 36, sizes[0]), (300, 450, sizes[1])):
        picture = np.zeros((height, width), np.uint8)
        picture[height // 2 + 1 :: 2, width // 2 + 1 :: 2] = 255
        top, left, side = busiest_square(picture, scale)
        assert side == expected and {top % scale, left % scale, side % scale} == {0}
        assert top + side <= height and left + side <= width and picture[top : top + side, left : left + side].any()


def test_report_json_has_the_shape_of_the_design(report, evaluation):
    content = json.loads((report / "report.json").read_text())
    assert content.keys() == {"dataset", "runs", "rows", "published", "level", "failed"}
    assert content["rows"] == evaluation["rows"]
    keys = {"method", "model", "params", "split", "profile", "frames", "mse", "psnr", "psnr_pooled", "ssim"}
    assert all(keys <= row.keys() for row in content["rows"])
    assert {row["method"] for row in content["rows"]} == {"bicubic", "wiener", "tiny"}


def test_csv_and_markdown_say_the_same(report, evaluation):
    with (report / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["psnr"]) for row in rows] == [row["psnr"] for row in evaluation["rows"]]
    text = (report / "report.md").read_text()
    for row in evaluation["rows"]:
        assert f"{row['psnr']:.2f}" in text
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        assert len({len(line) for line in table.splitlines()}) == 1, "the columns are not aligned"


def test_the_page_is_one_file_without_a_network(report):
    page = (report / "index.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)[^"']+""", page)
    assert not re.search(r"https?://(?!www\.w3\.org/)", page)
    assert page.count("<script") == 2  # the page's own, and the pictures that it reads
    for words in ("PSNR (dB", "training loss", "validation PSNR (dB)", "frame of the source", "data:image/png"):
        assert words in page


def test_names_from_a_stranger_are_text_on_the_page(trained, tmp_path):
    hostile = "<img src=x onerror=alert(1)>.mp4"
    copy = tmp_path / "tiny"
    shutil.copytree(trained, copy)
    content = json.loads((copy / "metrics-test.json").read_text())
    content["dataset"]["source"]["name"] = hostile
    rewrite(copy / "metrics-test.json", content)
    assert run_stage("report", copy).returncode == 0
    assert "<img src=x" not in (copy / "report" / "index.html").read_text()


def test_several_runs_are_compared_and_a_missing_one_is_named(dataset, trained, tmp_path):
    second, unmeasured = tmp_path / "second", tmp_path / "unmeasured"
    for run in (second, unmeasured):
        assert train_tiny(dataset, run, "--train.steps", 2).returncode == 0
    assert run_stage("evaluate", "--run", second).returncode == 0
    done = run_stage("report", trained, second, unmeasured, "--out", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "r" / "report.json").read_text())
    methods = [row["method"] for row in content["rows"] if row["profile"] == "paper"]
    assert methods == ["bicubic", "wiener", "tiny", "second"]
    assert content["failed"][0]["run"] == "unmeasured" and "hpc_vsr.evaluate --run" in content["failed"][0]["reason"]
    assert "unmeasured" in (tmp_path / "r" / "index.html").read_text()


def test_the_picture_shows_the_best_run_of_each_network():
    def named(**attributes):
        return SimpleNamespace(**attributes)

    networks = {"a": "delta", "b": "compact", "c": "compact", "unseen": "previous"}
    report = named(runs=[named(name=name, model=named(name=network)) for name, network in networks.items()],
                   pictures={"a", "b", "c", "wiener"}, main_profile="paper",
                   ranked=lambda _: [named(method=name) for name in ("unseen", "c", "wiener", "b", "a")])
    assert pictures.best_of_each_network(report) == ["c", "a"]


@pytest.mark.parametrize("arguments, words", [
    (("evaluate", "--run", "nowhere"), ["nowhere/config.json", "not found", "runs/NAME"]),
    (("evaluate",), ["--run"]),
    (("report", "nowhere"), ["no run can be reported", "name the folder of a training run"]),
    (("report",), ["RUN"]),
])
def test_a_wrong_command_line_is_refused(tmp_path, arguments, words):
    assert_refused(run_stage(*arguments, cwd=tmp_path), *words)


def test_a_run_without_a_checkpoint_is_refused(trained, tmp_path):
    copy = tmp_path / "tiny"
    shutil.copytree(trained, copy)
    shutil.rmtree(copy / "checkpoints")
    assert_refused(run_stage("evaluate", "--run", copy), "has no valid checkpoint")


def test_runs_on_different_data_sets_are_refused(clip, trained, tmp_path):
    other = tmp_path / "d"
    assert run_stage("preprocess", "--video", clip, "--shards", 3, "--out", other).returncode == 0
    assert train_tiny(other, tmp_path / "r", "--train.steps", 2).returncode == 0
    assert run_stage("evaluate", "--run", tmp_path / "r").returncode == 0
    done = run_stage("report", trained, tmp_path / "r", "--out", tmp_path / "out")
    assert_refused(done, "one report for each data set")


def test_a_run_that_was_renamed_has_to_be_measured_again(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "renamed")
    refused = run_stage("report", tmp_path / "renamed")
    assert_refused(refused, "was measured as 'tiny'", "python -m hpc_vsr.evaluate --run")


def test_a_run_of_an_older_version_is_finished_and_reported(dataset, trained, tmp_path):
    """Settings that came later stand at their defaults."""
    copy = tmp_path / "tiny"
    shutil.copytree(trained, copy)
    config = json.loads((copy / "config.json").read_text())
    for section, key in (("model", "init"), ("model", "output_range"), ("train", "num_frames"), ("train", "mse_from")):
        del config[section][key]
    rewrite(copy / "config.json", config)
    done = train_tiny(dataset, copy)
    assert done.returncode == 0 and "finished before" in done.stderr, done.stderr
    assert run_stage("report", copy).returncode == 0


def test_what_is_made_of_a_network_is_reported_apart(trained, dataset, tmp_path):
    copy = tmp_path / "tiny"
    shutil.copytree(trained, copy)
    done = run_stage("evaluate", "--run", copy, "--self_ensemble", "true", "--back_projection", 2, "--first_stage",
                     "true")
    assert done.returncode == 0, done.stderr
    again = json.loads((copy / "metrics-test.json").read_text())
    rows = {row["method"]: row for row in again["rows"] if row["profile"] == "paper"}
    assert list(rows) == ["bicubic", "wiener", "tiny", "tiny x8", "tiny bp", "tiny 2D", "tiny 2D fitted"]
    before = next(row for row in json.loads((trained / "metrics-test.json").read_text())["rows"]
                  if (row["method"], row["profile"]) == ("tiny", "paper"))
    assert rows["tiny"]["psnr"] == before["psnr"]  # the network's own row does not change
    assert rows["tiny x8"]["flops"] == 8 * rows["tiny"]["flops"] > 0
    assert rows["tiny 2D fitted"]["mse"] < rows["tiny 2D"]["mse"]
    assert rows["tiny x8"]["psnr"] != rows["tiny"]["psnr"] != rows["tiny bp"]["psnr"]
    assert run_stage("report", copy).returncode == 0


@pytest.fixture(scope="module")
def field_run(tmp_path_factory):
    """A run on a field with a gap, measured and reported."""
    folder = tmp_path_factory.mktemp("field")
    frames = moving_pattern(30, 48, 64)[..., 0] * 1e-6
    frames[:, 8:14, 10:16] = np.nan
    coordinates = {"lat": ("lat", np.linspace(60, 36.5, 48), {"units": "degrees_north"}),
                   "lon": ("lon", np.arange(64) * 0.5, {"units": "degrees_east"})}
    array = xarray.Dataset({"vorticity": (("time", "lat", "lon"), frames.astype(np.float32),
                                          {"units": "s-1", "long_name": "relative vorticity"})}, coords=coordinates)
    array.to_netcdf(folder / "f.nc")
    done = run_stage("preprocess", "--field", folder / "f.nc", "--variable", "vorticity", "--shards", 3, "--out",
                     folder / "data")
    assert done.returncode == 0, done.stderr
    for done in (train_tiny(folder / "data", folder / "run", "--train.steps", 2),
                 run_stage("evaluate", "--run", folder / "run"), run_stage("report", folder / "run")):
        assert done.returncode == 0, done.stderr
    return folder / "run"


def test_a_field_is_reported_in_its_units_with_spectra(field_run):
    content = json.loads((field_run / "report" / "report.json").read_text())
    row = next(row for row in content["rows"] if row["profile"] == "field" and row["method"] == "bicubic")
    assert 1e-7 < row["rmse"] < 1e-3 and row["rmse"] == pytest.approx(row["mse"] ** 0.5)
    assert {"bias", "q99_error", "q999_error", "log_spectral_distance", "band_small", "effective_resolution",
            "lr_consistency"} <= row.keys()
    assert len(row["spectrum"]["wavenumber"]) == len(row["spectrum"]["sr"]) == 24
    text = (field_run / "report" / "report.md").read_text()
    assert "in s-1." in text and "nan" not in text.lower().replace("nanometre", "")
    page = (field_run / "report" / "index.html").read_text()
    assert 'id="spectra"' in page and "power of the error / power of HR" in page and "power (s-1)" in page


def test_gaps_of_a_field_do_not_count(field_run):
    """The wrong values that were filled in are in no figure: the rows are those of only the known pixels."""
    manifest = read_manifest(field_run.parent / "data")
    split = Split(manifest, "test")
    row = next(row for row in json.loads((field_run / "metrics-test.json").read_text())["rows"]
               if row["profile"] == "field" and row["method"] == "bicubic")
    for index, centre in enumerate(split.centres):
        hr = split.hr_frame(centre)[0].numpy()
        assert np.isnan(hr[8:14, 10:16]).all() and np.isnan(hr).sum() == 36
        lr = split.lr_frames(centre, centre + 1)[0, 0].numpy()
        sr = cv2.resize(lr, (64, 48), interpolation=cv2.INTER_CUBIC)
        assert row["per_frame"]["mse"][index] == pytest.approx(np.nanmean((sr - hr) ** 2.0), rel=1e-3)


@pytest.mark.parametrize("level", ["nan", "inf", "1e400"])
def test_a_level_that_is_no_number_is_refused(trained, tmp_path, level):
    assert_refused(run_stage("report", trained, "--out", tmp_path / "r", "--level", level), "--level")
    assert not (tmp_path / "r").exists()
