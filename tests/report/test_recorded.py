"""What a report refuses to read: evaluations of another version, or made up."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
from files import rewrite
from stages import assert_refused, run_stage

from hpc_vsr.report.recorded import fault_of


def test_what_evaluation_writes_has_no_fault(evaluation):
    assert fault_of(evaluation, "test") is None


@pytest.mark.parametrize(("change", "words"), [
    (lambda content: content["rows"][0].pop("ssim"), "rows.ssim"),
    (lambda content: content["rows"][0]["per_frame"]["psnr"].pop(), "rows.bicubic: lists of different lengths"),
    (lambda content: content.update(rows=content["rows"][:1]), "rows of profile 'paper'"),
    (lambda content: content.update(rows=[]), "rows of profile ''"),
    (lambda content: content["rows"][0].update(profile="field"), "rows.bicubic.rmse"),
    (lambda content: content["dataset"].update(hr_size=[10**6, 10**6]), "hr_size"),
    (lambda content: content["dataset"]["splits"].update(val="x"), "dataset.splits"),
    (lambda content: content["dataset"]["source"].update(coordinates=[1]), "coordinates"),
    (lambda content: content["settings"].update(published="weather"), "settings.published"),
    (lambda content: content.update(step=True), "step"),
    (lambda content: content.update(flow={}), "flow.learned"),
])
def test_anything_else_is_named(evaluation, change, words):
    changed = copy.deepcopy(evaluation)
    change(changed)
    assert words in fault_of(changed, "test")


def test_it_is_refused_with_what_mends_it(trained, tmp_path):
    run = tmp_path / trained.name
    shutil.copytree(trained, run)
    content = json.loads((run / "metrics-test.json").read_text())
    del content["rows"][0]["ssim"]
    rewrite(run / "metrics-test.json", content)
    done = run_stage("report", run, "--out", tmp_path / "r")
    assert_refused(done, "of this version (rows.ssim)", f"run 'python -m hpc_vsr.evaluate --run {run}")
