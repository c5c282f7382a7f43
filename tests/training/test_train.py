"""Training as a user runs it: resumption to the bit, ranks, precision."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from files import rewrite
from stages import torchrun
from trainings import TINY, assert_equal_to_the_bit, final_weights, records, train_tiny

import hpc_vsr.models.precision
from hpc_vsr import train
from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.samples import Split
from hpc_vsr.experiment.progress import read_progress
from hpc_vsr.runs.checkpoints import Checkpoints
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.state import load_checkpoint
from hpc_vsr.system.errors import exit_status
from hpc_vsr.system.files import is_valid
from hpc_vsr.training import trainer
from hpc_vsr.training.objective import compute_loss
from hpc_vsr.training.optimisation import learning_rate

pytestmark = pytest.mark.compute


def test_a_run_leaves_what_formats_md_names(trained):
    names = {path.name for path in trained.iterdir()}
    assert names == {"config.json", "metrics.jsonl", "checkpoints", "log.txt", "metrics-test.json", "pictures-test.npz"}
    assert json.loads((trained / "config.json").read_text())["train"]["steps"] == 6
    lines = records(trained)
    training = [line for line in lines if "loss" in line]
    assert [line["step"] for line in training] == [1, 2, 3, 4, 5, 6]
    assert [line["samples_seen"] for line in training] == [4, 8, 12, 16, 20, 24]
    assert all({"epoch", "lr", "samples_per_second", "memory_bytes"} <= line.keys() for line in training)
    assert [line["step"] for line in lines if "validation" in line] == [3, 6]
    checkpoints = sorted(path.name for path in (trained / "checkpoints").glob("*.pt"))
    assert "step-00000006.pt" in checkpoints and len(checkpoints) <= 3
    assert all(is_valid(trained / "checkpoints" / name) for name in checkpoints)


def test_a_finished_run_says_so(dataset, trained):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*.pt")}
    done = train_tiny(dataset, trained)
    assert done.returncode == 0 and "finished before, 6 steps" in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*.pt")}


def test_a_loss_that_overflows_is_a_divergence_although_its_gradients_are_finite(dataset, tmp_path):
    done = train_tiny(dataset, tmp_path / "r", "--train.lr", "1e30")
    assert done.returncode == 0, done.stderr
    assert f"warning: {tmp_path / 'r'}: diverged: the loss was not finite at step 6\n" in done.stderr
    assert records(tmp_path / "r")[-2]["skipped_steps"] == 0
    assert read_progress(RunFolder(tmp_path / "r")).state == "diverged"


@pytest.mark.slow
def test_the_loss_goes_down(dataset, tmp_path):
    """From that of the residual path, at which a network begins; a dead one would stay there."""
    done = train_tiny(dataset, tmp_path / "r", "--model.skip", "bicubic", "--model.input", "deconvolved",
                      "--train.steps", 60, "--train.patch_size", 24, "--train.warmup_steps", 20)
    assert done.returncode == 0, done.stderr
    losses = [line["loss"] for line in records(tmp_path / "r") if "loss" in line]
    assert np.mean(losses[-15:]) < 0.8 * np.mean(losses[:15]), losses


def test_a_damaged_newest_checkpoint_is_passed_over(dataset, trained, tmp_path):
    run = tmp_path / "r"
    shutil.copytree(trained, run)
    newest = run / "checkpoints" / "step-00000006.pt"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    assert not is_valid(newest)
    assert load_checkpoint(Checkpoints(run / "checkpoints").newest())["step"] < 6
    done = train_tiny(dataset, run)
    assert done.returncode == 0 and "resumed at step" in done.stderr, done.stderr
    assert_equal_to_the_bit(run, trained)


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_several_ranks_learn_what_one_learns(dataset, trained, tmp_path, num_ranks):
    done = train_tiny(dataset, tmp_path / "r", launcher=torchrun(num_ranks))
    assert done.returncode == 0, done.stderr
    assert f"{num_ranks} ranks on cpu" in done.stderr and "FutureWarning" not in done.stderr
    alone = final_weights(trained)
    for name, value in final_weights(tmp_path / "r").items():
        torch.testing.assert_close(value, alone[name], rtol=1e-3, atol=2e-4, msg=name)
    ours, theirs = records(tmp_path / "r"), records(trained)
    assert [line["samples_seen"] for line in ours] == [line["samples_seen"] for line in theirs]
    for line, other in zip(ours, theirs, strict=True):
        if "loss" in line:
            assert line["loss"] == pytest.approx(other["loss"], rel=1e-3)
        else:  # 1 validation frame on 2 or 4 ranks: no padding, no frame counted twice
            assert line["validation"]["frames"] == other["validation"]["frames"] == 1
            assert line["validation"]["psnr"] == pytest.approx(other["validation"]["psnr"], abs=1e-2)


def test_frames_read_by_workers_train_the_same_network(dataset, trained, tmp_path):
    done = train_tiny(dataset, tmp_path / "r", "--train.resident", "never", "--train.num_workers", 2)
    assert done.returncode == 0 and "frames read from the shards" in done.stderr, done.stderr
    assert_equal_to_the_bit(tmp_path / "r", trained)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_follows_full_precision(dataset, trained, tmp_path, precision, monkeypatch):
    """Until the scaler of fp16 leaves out a step: its first factor is meant to be too large. A CPU stands in for a GPU.
    """
    monkeypatch.setattr(trainer, "check_precision", lambda *arguments: None)
    monkeypatch.setattr(hpc_vsr.models.precision, "check_precision", lambda *arguments: None)
    words = ["--data", dataset, "--out", tmp_path / "r", *TINY, "--train.precision", precision]
    assert exit_status(train.main, [str(word) for word in words]) == 0
    ours, theirs = ([line["loss"] for line in records(run) if "loss" in line] for run in (tmp_path / "r", trained))
    assert ours[:2] == pytest.approx(theirs[:2], rel=0.02) and ours[-1] < ours[1]
    ours, theirs = ([line["validation"]["psnr"] for line in records(run) if "validation" in line][-1]
                    for run in (tmp_path / "r", trained))
    assert ours == pytest.approx(theirs, abs=0.2 if precision == "bf16" else 4)


@pytest.mark.parametrize("launcher", [(), "torchrun"], ids=["alone", "two ranks"])
def test_micro_batches_learn_what_the_whole_batch_learns(dataset, tmp_path, launcher):
    """With the paper's loss on grey levels: where gradients are near zero, Adam makes their rounding large."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for run, micro_batches in ((whole, 1), (parts, 2)):
        done = train_tiny(dataset, run, "--model.skip", "none", "--model.value_range", 255, "--train.loss", "mse",
                          "--train.micro_batches", micro_batches,
                          launcher=torchrun(2) if launcher and run == parts else ())
        assert done.returncode == 0, done.stderr
    losses = [[line["loss"] for line in records(run) if "loss" in line] for run in (parts, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    one, other = final_weights(parts), final_weights(whole)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6)


def test_the_published_setting_runs_too(dataset, tmp_path):
    """No skip, whole frames, batch 1, MSE, constant rate, the weights themselves: the paper's protocol."""
    done = train_tiny(dataset, tmp_path / "r", "--model.skip", "none", "--train.patch_size", 0, "--train.batch_size", 1,
                      "--train.loss", "mse", "--train.final_lr", 1, "--train.ema_decay", 0, "--train.augment", "false",
                      "--train.warmup_steps", 0, "--train.steps", 3)
    assert done.returncode == 0, done.stderr
    state = load_checkpoint(Checkpoints(tmp_path / "r" / "checkpoints").newest())
    for name, value in state["network"].items():
        assert torch.equal(value, state["weights"][name]), name


def test_only_the_chosen_frames_are_trained_on(dataset):
    manifest = read_manifest(dataset)
    whole, part = Split(manifest, "train"), Split(manifest, "train", num_frames=8)
    assert len(part) == 4 and part.centres == whole.centres[-4:]


def test_the_learning_rate_warms_up_and_follows_a_cosine():
    rates = [learning_rate(step, 110, 1.0, 10, 0.1) for step in range(110)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0 and rates[60] == pytest.approx(0.55) and rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_frames_without_a_value_are_not_in_the_loss():
    hr = torch.tensor([[1.0, float("nan")], [0.0, 2.0]])
    sr = torch.tensor([[0.0, 7.0], [0.0, 2.0]], requires_grad=True)
    loss = compute_loss("mse", sr, hr)
    loss.backward()
    assert loss.item() == pytest.approx(1 / 4) and sr.grad[0, 1] == 0 and torch.isfinite(sr.grad).all()
    assert compute_loss("mse", sr, hr, unit=255).item() == pytest.approx(255**2 / 4)
    assert compute_loss("charbonnier", sr, torch.full((2, 2), float("nan"))).item() == 0


def test_the_losses_are_what_their_names_say():
    sr, hr = torch.tensor([0.0, 0.5]), torch.tensor([0.1, 0.5])
    assert compute_loss("mse", sr, hr).item() == pytest.approx(0.005)
    assert compute_loss("charbonnier", sr, hr).item() == pytest.approx((np.sqrt(0.01 + 1e-6) + 1e-3) / 2)


def test_settings_may_change_until_there_is_a_checkpoint(dataset, trained, tmp_path):
    run = tmp_path / "r"
    run.mkdir()
    config = json.loads((trained / "config.json").read_text())
    config["train"]["lr"] = 7
    rewrite(run / "config.json", config)
    assert train_tiny(dataset, run).returncode == 0
    assert_equal_to_the_bit(run, trained)
