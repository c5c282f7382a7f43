"""Records that other commands read are refused if they are of another version or made up."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
from files import rewrite
from stages import assert_refused, run_stage

from hpc_vsr.data.info import DatasetInfo
from hpc_vsr.evaluation.record import Evaluation
from hpc_vsr.system.config import as_dict, from_dict
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import read_sealed


@pytest.fixture(scope="module")
def info(dataset) -> dict:
    return read_sealed(dataset / "dataset.json", "")


def test_a_record_is_written_as_it_was_read(evaluation, info):
    assert json.dumps(as_dict(from_dict(Evaluation, evaluation, ""))) == json.dumps(evaluation)
    assert json.dumps(as_dict(from_dict(DatasetInfo, info, ""))) == json.dumps(info)


def test_a_key_that_a_later_version_adds_is_ignored(evaluation):
    later = copy.deepcopy(evaluation)
    later["colour"] = later["dataset"]["source"]["colour"] = later["rows"][0]["colour"] = "red"
    assert from_dict(Evaluation, later, "") == from_dict(Evaluation, evaluation, "")


@pytest.mark.parametrize(("change", "words"), [
    (lambda content: content["rows"][0].pop("ssim"), "rows: lacks ssim"),
    (lambda content: content["rows"][0].update(tof="x"), "rows: tof: expected a number"),
    (lambda content: content["rows"][0]["per_frame"]["psnr"].pop(), "per_frame: lists of different lengths"),
    (lambda content: [row["per_frame"].update(dict.fromkeys(row["per_frame"], [])) for row in content["rows"]],
     "per_frame: lists of different lengths, or empty ones"),
    (lambda content: content.update(rows=content["rows"][:1]), "profile 'paper'"),
    (lambda content: content.update(rows=[]), "profile ''"),
    (lambda content: content.update(run="another"), "profile 'paper'"),
    (lambda content: content["rows"][0].update(profile="field"), "rows: bicubic: lacks rmse"),
    (lambda content: content["rows"][0].update(psnr=1e301), "rows: psnr: expected a finite number"),
    (lambda content: content["rows"][0].update(flops=10**400), "rows: flops: expected a finite number"),
    (lambda content: content["dataset"].update(dtype="float32"), "profile 'sr'"),
    (lambda content: content["dataset"].update(hr_size=[10**6, 10**6]), "hr_size"),
    (lambda content: content["dataset"].update(hr_size=[96000, 128000], lr_size=[48000, 64000]), "hr_size"),
    (lambda content: content["dataset"]["splits"].update(val="x"), "dataset: splits: val"),
    (lambda content: content["dataset"]["source"].update(coordinates=[1]), "dataset: source: coordinates"),
    (lambda content: content["settings"].update(published="weather"), "settings: published"),
    (lambda content: content.update(settings=3), "settings: expected an object"),
    (lambda content: content.update(step=True), "step: expected a whole number"),
    (lambda content: content.update(flow={}), "flow: lacks learned"),
])
def test_an_evaluation_that_is_none_is_refused_with_its_fault(evaluation, change, words):
    changed = copy.deepcopy(evaluation)
    change(changed)
    with pytest.raises(InputError) as refused:
        from_dict(Evaluation, changed, "")
    assert words in str(refused.value)


@pytest.mark.parametrize(("change", "words"), [
    (lambda content: content.pop("splits"), "lacks splits"),
    (lambda content: content["splits"].pop("val"), "wrong splits"),
    (lambda content: content["splits"].update(val=[5]), "splits: val: expected 2 values"),
    (lambda content: content["splits"].update(test=[40, 10**12 * 2]), "wrong splits"),
    (lambda content: content.update(channels=[]), "wrong channels"),
    (lambda content: content.update(channels=["a", 3]), "channels: expected a text"),
    (lambda content: content.update(lr_size=[0, 0], hr_size=[0, 0]), "hr_size or lr_size"),
    (lambda content: content["normalisation"].update(extent=0), "normalisation"),
    (lambda content: content["value_range"].reverse(), "value_range"),
    (lambda content: content["degradation"].update(scale=5), "degradation: scale: expected one of 2, 3, 4"),
    (lambda content: content["degradation"].update(noise=3), "degradation: unknown setting 'noise'"),
    (lambda content: content["shards"][0].update(name="../train-00000-of-00003.h5"), "wrong name of a shard"),
    (lambda content: content["shards"][0].update(split="train-00000"), "shards: split: expected one of"),
    (lambda content: content["shards"][0].update(split="val"), "wrong name of a shard"),
    (lambda content: content["shards"][0].update(first_frame=-1), "frames of train-00000"),
    (lambda content: content["shards"][0].update(frames=6), "wrong train-00000"),
    (lambda content: content["shards"][0].update(bytes=100), "bytes of train-00000"),
    (lambda content: content["shards"][0].update(sha256="0"), "wrong train-00000"),
    (lambda content: content["shards"][0].update(hr_min=None), "shards: hr_min: expected a number"),
])
def test_a_dataset_json_that_is_none_is_refused_with_its_fault(info, change, words):
    changed = copy.deepcopy(info)
    change(changed)
    with pytest.raises(InputError) as refused:
        from_dict(DatasetInfo, changed, "")
    assert words in str(refused.value)


def test_it_is_refused_with_what_mends_it(trained, tmp_path):
    run = tmp_path / trained.name
    shutil.copytree(trained, run)
    content = json.loads((run / "metrics-test.json").read_text())
    del content["rows"][0]["ssim"]
    rewrite(run / "metrics-test.json", content)
    done = run_stage("report", run, "--out", tmp_path / "r")
    assert_refused(done, "of this version (rows: lacks ssim)", f"run 'python -m hpc_vsr.evaluate --run {run}")
