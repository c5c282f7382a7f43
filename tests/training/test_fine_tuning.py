"""Fine-tuning: `train --from RUN` starts with that run's weights, says where from, and refuses what does not fit."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from patterns import moving_pattern
from stages import assert_refused, run_stage, torchrun
from trainings import assert_equal_to_the_bit, records, train_tiny
from videos import write_video

from hpc_vsr.evaluation.published import published_names
from hpc_vsr.models.parallel5 import Parallel5
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.runs.checkpoints import Checkpoints
from hpc_vsr.runs.state import load_checkpoint
from hpc_vsr.runs.trained import DataTerms, Trained
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import sha256
from hpc_vsr.training.start import compare_noise, compare_terms

pytestmark = pytest.mark.compute

KEPT = ("--train.keep_checkpoints", 9)


@pytest.fixture(scope="module")
def other_clip(tmp_path_factory) -> Path:
    """The last 30 of 70 frames, which `clip` does not have."""
    return write_video(tmp_path_factory.mktemp("clip") / "other.mp4", moving_pattern(70, 48, 64)[40:])


@pytest.fixture(scope="module")
def other(tmp_path_factory, other_clip) -> Path:
    """A data set of another clip with another blur."""
    return preprocess(other_clip, tmp_path_factory.mktemp("data") / "other", "--degradation.sigma", 2,
                      "--split.train", 0.5, "--split.val", 0.3, "--split.test", 0.2)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, other, trained) -> Path:
    """A finished run on `other` that started from `trained`."""
    run = tmp_path_factory.mktemp("tuned") / "tuned"
    done = train_tiny(other, run, "--from", trained, *KEPT)
    assert done.returncode == 0, done.stderr
    return run


def preprocess(clip: Path, out: Path, *more) -> Path:
    done = run_stage("preprocess", "--video", clip, "--shards", 3, "--out", out, *more)
    assert done.returncode == 0, done.stderr
    return out


def load_step(run: Path, step: int) -> dict:
    return load_checkpoint(Checkpoints(run / "checkpoints").path_of(step))


def test_it_starts_with_the_weights_of_the_other_run_and_the_filters_of_its_own_data(tuned, trained):
    best, begun = load_checkpoint(Checkpoints(trained / "checkpoints").best())["weights"], load_step(tuned, 0)
    filters = {name for name in best if name.endswith("kernels")}
    assert filters
    for weights in (begun["network"], begun["weights"]):
        assert weights.keys() == best.keys()
        assert all(torch.equal(weights[name], best[name]) for name in best.keys() - filters)
        assert not any(weights[name].shape == best[name].shape and torch.equal(weights[name], best[name])
                       for name in filters)
    assert begun["optimiser"]["state"] == {} and begun["data_terms"]["sigma"] == 2
    assert any(not torch.equal(load_step(tuned, 6)["network"][name], best[name]) for name in best)


def test_it_records_and_says_where_it_comes_from(tuned, trained):
    best = Checkpoints(trained / "checkpoints").best()
    for config in (json.loads((tuned / "config.json").read_text()), load_step(tuned, 6)["config"]):
        assert config["start"] == {"run": "tiny", "file": best.name, "step": int(best.stem[-8:]),
                                   "sha256": sha256(best), "before": None, "imported": None, "data_fingerprint":
                                   json.loads((trained / "config.json").read_text())["data_fingerprint"]}
    log = (tuned / "log.txt").read_text()
    assert f"starts from {trained}: {best.name}, its best validated weights (SHA-256 {sha256(best)[:8]})" in log
    assert "warning: the blur has sigma 2, and had 3 in the training of the weights" in log


def test_on_the_same_data_its_first_score_is_the_best_one_of_the_other_run(dataset, trained, tmp_path):
    assert train_tiny(dataset, tmp_path / "r", "--from", trained).returncode == 0
    first = records(tmp_path / "r")[0]
    assert first["step"] == 0 and first["validation"]["psnr"] == pytest.approx(
        max(line["validation"]["psnr"] for line in records(trained) if "validation" in line), abs=1e-9)


@pytest.mark.parametrize("left", [0, 4])
def test_resumed_it_does_not_start_again_and_needs_the_other_run_no_more(other, trained, tuned, tmp_path, left):
    """As after a kill between two checkpoints, when the other run is gone."""
    run, start = tmp_path / "r", tmp_path / "gone"
    shutil.copytree(tuned, run)
    config = json.loads((tuned / "config.json").read_text())
    for path in (run / "checkpoints").glob("step-*"):
        if int(path.name[5:13]) > left:
            path.unlink()
    done = train_tiny(other, run, "--from", trained.parent / "." / trained.name, *KEPT)
    assert done.returncode == 0 and "starts from" not in done.stderr, done.stderr
    assert_equal_to_the_bit(run, tuned)
    assert records(run)[0]["validation"] == records(tuned)[0]["validation"]
    assert json.loads((run / "config.json").read_text())["start"] == config["start"]
    assert_refused(train_tiny(other, run, *KEPT), "was begun with --from ", "give it again to continue")
    assert_refused(train_tiny(other, run, "--from", start, *KEPT), "train.from is ", str(start))


def test_the_other_run_may_be_deleted_once_it_has_begun(dataset, trained, tmp_path):
    start, run = tmp_path / "start", tmp_path / "r"
    shutil.copytree(trained, start)
    assert train_tiny(dataset, run, "--from", start, *KEPT).returncode == 0
    shutil.rmtree(start)
    for path in (run / "checkpoints").glob("step-*6.pt*"):
        path.unlink()
    done = train_tiny(dataset, run, "--from", start, *KEPT)
    assert done.returncode == 0 and "resumed at step 4, fine-tuned from start" in done.stderr, done.stderr
    assert_refused(train_tiny(dataset, tmp_path / "new", "--from", start), "train.from: ", "config.json: not found")


@pytest.mark.parametrize("more, words", [
    (("--model.name", "parallel5"), ["model.name: is 'parallel5', and the weights of ", " are for 'delta'"]),
    (("--model.skip", "bicubic"), ["model.skip: is 'bicubic'", "leave it out, or train without --from"]),
    (("--model.skip", "none"), ["model.skip: is 'none'", "are for 'wiener'"]),  # the default, and given
    (("--model.value_range", 255), ["model.value_range: is 255.0"]),
])
def test_a_setting_that_the_weights_do_not_have_is_refused_by_its_name(dataset, trained, tmp_path, more, words):
    assert_refused(train_tiny(dataset, tmp_path / "r", "--from", trained, *more), *words)
    assert not (tmp_path / "r").exists()


def test_what_is_not_given_is_as_in_the_other_run_and_depth_may_change(dataset, trained, tmp_path):
    short = ("--train.steps", 1, "--train.patch_size", 12, "--train.batch_size", 4, "--train.device", "cpu",
             "--train.precision", "fp32")
    done = run_stage("train", "--data", dataset, "--out", tmp_path / "r", "--from", trained, "--model.n_3d", 2, *short)
    assert done.returncode == 0, done.stderr
    assert f"warning: model.n_3d is 2, and 1 in {trained}" in done.stderr
    model = json.loads((tmp_path / "r" / "config.json").read_text())["model"]
    assert (model["n_2d"], model["n_3d"], model["skip"]) == (1, 2, "wiener")  # the defaults are 5, 5 and none


def test_data_of_another_kind_and_what_is_no_run_are_refused(dataset, other_clip, trained, tmp_path):
    colour = preprocess(other_clip, tmp_path / "rgb", "--channels", "rgb")
    assert_refused(train_tiny(colour, tmp_path / "r", "--from", trained), "was trained on 1 channel, and ",
                   "has 3 (R, G, B)", "--channels")
    smaller = preprocess(other_clip, tmp_path / "x4", "--degradation.scale", 4)
    assert_refused(train_tiny(smaller, tmp_path / "r", "--from", trained), "enlarges 2 times, and ", "is for 4 times")
    assert_refused(train_tiny(dataset, tmp_path / "r", "--from", tmp_path), "train.from: ", "name the folder of a")
    assert_refused(train_tiny(dataset, tmp_path / "r", "--from", tmp_path / "r"), "the folder of this run itself")
    empty = tmp_path / "empty"
    shutil.copytree(trained, empty)
    shutil.rmtree(empty / "checkpoints")
    assert_refused(train_tiny(dataset, tmp_path / "r", "--from", empty), "has no valid checkpoint yet; train it first")


def test_a_dry_run_says_it_and_writes_nothing(other, trained, tmp_path):
    done = train_tiny(other, tmp_path / "r", "--from", trained, "--dry-run")
    assert done.returncode == 0 and f"start    starts from {trained}" in done.stdout and "sigma 2" in done.stdout
    assert not (tmp_path / "r").exists()


def test_a_start_that_is_not_finished_is_told(dataset, trained, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(trained, start)
    for path in start.glob("checkpoints/step-00000006*"):
        path.unlink()
    (start / "checkpoints" / "best.json").unlink()
    done = train_tiny(dataset, tmp_path / "r", "--from", start)
    assert "is not finished: stopped at step 4 of 6" in done.stderr and "step-00000004.pt, its newest" in done.stderr


@pytest.mark.slow
def test_all_ranks_start_with_the_same_weights(other, trained, tuned, tmp_path):
    """They share the validation of step 0, each with its own copy of the averaged weights."""
    done = train_tiny(other, tmp_path / "r", "--from", trained, *KEPT, launcher=torchrun(2))
    assert done.returncode == 0, done.stderr
    ours, theirs = records(tmp_path / "r"), records(tuned)
    assert ours[0]["validation"]["frames"] > 1
    assert ours[0]["validation"]["psnr"] == pytest.approx(theirs[0]["validation"]["psnr"], abs=1e-4)
    assert [line["loss"] for line in ours if "loss" in line] == pytest.approx(
        [line["loss"] for line in theirs if "loss" in line], rel=1e-3)


@pytest.mark.slow
def test_imported_weights_are_a_start_too(dataset, tmp_path):
    own = Parallel5().state_dict()
    torch.save({f"{theirs}.{kind}": own[f"{ours}.{kind}"] for ours, theirs in published_names().items()
                for kind in ("weight", "bias")}, tmp_path / "w.pth")
    assert run_stage("import_weights", tmp_path / "w.pth", "--out", tmp_path / "imported").returncode == 0
    done = run_stage("train", "--data", dataset, "--out", tmp_path / "r", "--from", tmp_path / "imported",
                     "--train.steps", 1, "--train.batch_size", 1, "--train.patch_size", 12, "--train.device", "cpu",
                     "--train.precision", "fp32", "--train.lr", 1e-6)
    assert done.returncode == 0 and "its imported weights" in done.stderr, done.stderr
    begun, config = load_step(tmp_path / "r", 0), json.loads((tmp_path / "r" / "config.json").read_text())
    assert torch.equal(begun["weights"]["core.last.weight"], own["last.weight"])
    assert (config["model"]["name"], config["model"]["value_range"]) == ("parallel5", 255)
    assert config["start"]["imported"] == {"file": "w.pth", "sha256": sha256(tmp_path / "w.pth")}


@pytest.mark.slow
def test_the_report_the_card_and_status_name_the_start(other, trained, tuned, tmp_path):
    checksum, again = sha256(Checkpoints(trained / "checkpoints").best()), tmp_path / "again"
    assert train_tiny(other, again, "--from", tuned, "--train.steps", 2).returncode == 0
    for done in (run_stage("evaluate", "--run", again), run_stage("report", again),
                 run_stage("export", "--run", again, "--out", tmp_path / "card", "--formats", "pt2")):
        assert done.returncode == 0, done.stderr
    content = json.loads((again / "report" / "report.json").read_text())
    assert content["runs"][0]["start"]["before"]["sha256"] == checksum
    page, card = (again / "report" / "index.html").read_text(), (tmp_path / "card" / "README.md").read_text()
    for text in (page, card):
        assert "from tuned (SHA-256 " in text or "those of tuned (SHA-256 " in text
        assert f"which was fine-tuned from tiny (SHA-256 {checksum}) at step " in text
    # frames that this run has not seen may be among those that its ancestor was trained on
    assert "again (from tiny) was fine-tuned after a training on another data set, which may hold some" in page
    status = run_stage("status", "--data", other, "--out", tuned, "--from", trained, environment={"PATH": "/nowhere"})
    assert "fine-tuned from tiny, step " in status.stdout, status.stderr


FIELD = DataTerms(1, 2, 3.0, 1e-3, 100.0, 50.0, "", is_video=False)
FLOW = DataTerms(2, 2, 3.0, [1e-3, 1e-3], [0.0, 5.0], [1.0, 2.0], "", is_video=False, subtracted=[0.0, 7.0],
                 variables=["u", "p"], units=["m s-1", "Pa"])


@pytest.mark.parametrize("before, changes, words", [
    (FIELD, {"extent": 53.0}, []),
    (FIELD, {"offset": 1.0, "subtracted": 99.0}, []),  # the same values, stored in another way
    (FIELD, {"offset": 110.0}, ["0..1 to the network are 110 to 160 in the data, and were 100 to 150 in"]),
    (FIELD, {"sigma": 2.0}, ["the blur has sigma 2, and had 3"]),
    (FIELD, {"offset": 0.0, "extent": 255.0, "is_video": True}, ["the data are grey levels of a video or images"]),
    (FLOW, {"offset": [0.0, 12.0], "subtracted": [0.0, 0.0]}, []),
    (FLOW, {"extent": [1.0, 3.0]}, ["are 0 to 1, 12 to 15 in the data, and were 0 to 1, 12 to 14 in"]),
    (FLOW, {"variables": ["v", "t"]}, ["the names are taken in their order, v for u, t for p"]),
])
def test_other_values_and_another_blur_are_told(before, changes, words):
    trained = Trained(None, ModelSettings(), before, 0, "runs/a", "")
    lines = compare_terms(trained, dataclasses.replace(before, **changes), ModelSettings())
    assert len(lines) == len(words) and all(word in line for word, line in zip(words, lines, strict=True)), lines


def test_variables_in_another_order_are_refused():
    trained = Trained(None, ModelSettings(), FLOW, 0, "runs/a", "")
    with pytest.raises(InputError, match="was trained on u, p, in this order"):
        compare_terms(trained, dataclasses.replace(FLOW, variables=["p", "u"]), ModelSettings())


@pytest.mark.parametrize("before, noise, told", [
    (1e-3, 1.9e-3, ""),
    (1e-3, 4e-3, "is 0.004, tuned on these data, and was 0.001"),
    ([1e-3, 1e-3], [1e-3, 1e-5], "is 0.001, 1e-05, tuned"),
])
def test_another_noise_constant_is_told_if_it_differs_much(before, noise, told):
    assert told in "".join(compare_noise(before, noise)) and bool(told) == bool(compare_noise(before, noise))
