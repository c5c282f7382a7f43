"""Training as a user runs it: resumption to the bit, ranks, precision."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, assert_refused, rewrite, torchrun, train_tiny

from hpc_vsr import files
from hpc_vsr.checkpoint import find_best, is_valid, load_checkpoint, newest_valid, save_checkpoint
from hpc_vsr.dataset import Split
from hpc_vsr.experiment import Experiment, TrainSettings
from hpc_vsr.lock import only_writer
from hpc_vsr.manifest import read_manifest
from hpc_vsr.models import ModelSettings
from hpc_vsr.optim import learning_rate, loss_of
from hpc_vsr.runs import DataTerms
from hpc_vsr.training_plan import memory_of_rank


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint(newest_valid(run / "checkpoints"))
    return {**{f"network.{name}": value for name, value in state["network"].items()},
            **{f"average.{name}": value for name, value in state["weights"].items()}}


def assert_equal_to_the_bit(run: Path, other: Path) -> None:
    ours, theirs = final_weights(run), final_weights(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


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


def test_the_loss_goes_down(dataset, tmp_path):
    done = train_tiny(dataset, tmp_path / "r", "--train.steps", 60, "--train.validate_every", 0, "--train.lr", 2e-3,
                      "--model.skip", "bicubic")
    assert done.returncode == 0, done.stderr
    losses = [line["loss"] for line in records(tmp_path / "r") if "loss" in line]
    assert np.mean(losses[-15:]) < 0.9 * np.mean(losses[:15]), losses


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_asked_to_stop_it_saves_and_continues_to_the_same_bits(dataset, trained, tmp_path, stop_signal):
    run = tmp_path / "r"
    process = start(dataset, run)
    wait_for_step(run, 1, process)
    process.send_signal(stop_signal)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75 and "the same command continues" in err, err
    assert load_checkpoint(newest_valid(run / "checkpoints"))["step"] < 6
    assert train_tiny(dataset, run).returncode == 0
    assert_equal_to_the_bit(run, trained)


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_killed_it_continues_to_the_same_bits(dataset, trained, tmp_path, step):
    run = tmp_path / "r"
    process = start(dataset, run)
    wait_for_step(run, step, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = train_tiny(dataset, run)
    assert again.returncode == 0, again.stderr
    assert_equal_to_the_bit(run, trained)
    assert [line["step"] for line in records(run) if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert not list(run.rglob("*.partial"))


def start(dataset: Path, run: Path, *more) -> subprocess.Popen:
    command = [sys.executable, "-m", "hpc_vsr.train", "--data", dataset, "--out", run, *TINY, *more]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([str(part) for part in command], env=env, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def wait_for_step(run: Path, step: int, process: subprocess.Popen) -> None:
    while process.poll() is None:
        if (run / "metrics.jsonl").exists() and f'"step": {step},' in (run / "metrics.jsonl").read_text():
            return
        time.sleep(0.002)


def test_killed_before_its_configuration_was_whole_it_starts_anew(dataset, tmp_path):
    run = tmp_path / "r"
    run.mkdir()
    (run / ".config.json.partial").write_text("{")
    (run / ".writable").touch()
    assert train_tiny(dataset, run, "--train.steps", 1).returncode == 0
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_killed_before_the_best_checkpoint_was_named_it_is_named_again(dataset, trained, tmp_path):
    run = tmp_path / "r"
    shutil.copytree(trained, run)
    best = json.loads((run / "checkpoints" / "best.json").read_text())
    rewrite(run / "checkpoints" / "best.json", {**best, "file": "step-00000001.pt"})
    assert train_tiny(dataset, run).returncode == 0
    assert json.loads((run / "checkpoints" / "best.json").read_text()) == best


@pytest.mark.parametrize("best_stays", [True, False])
def test_without_its_name_the_best_checkpoint_is_known_to_the_newest(trained, tmp_path, capsys, best_stays):
    folder = shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    best, newest = find_best(folder), newest_valid(folder)
    state = {**load_checkpoint(newest), "step": 9}
    save_checkpoint(folder, state, 9, keep=9, best_score=None)
    (folder / "best.json").write_text("{")
    if not best_stays:
        best.write_bytes(best.read_bytes()[:-1])
    assert find_best(folder) == (best if best_stays else folder / "step-00000009.pt")
    assert (f"{best}: is damaged or lost; step-00000009.pt" in capsys.readouterr().err) != best_stays


@pytest.mark.parametrize("patience", ["0", "-1", "ten", "1e9", ""])
def test_a_patience_that_is_no_time_is_refused(dataset, tmp_path, patience):
    environment = {"HPC_VSR_PATIENCE": patience, "RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost",
                   "MASTER_PORT": "1"}
    assert_refused(train_tiny(dataset, tmp_path / "r", environment=environment), "HPC_VSR_PATIENCE", "1 to 86400")
    assert not (tmp_path / "r").exists()


def test_ranks_that_do_not_meet_end_with_a_line(dataset, tmp_path):
    environment = {"HPC_VSR_PATIENCE": "1", "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    assert_refused(train_tiny(dataset, tmp_path / "r", environment=environment), "MASTER_PORT")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment["MASTER_PORT"] = str(taken.getsockname()[1])
        done = train_tiny(dataset, tmp_path / "r", environment={**environment, "RANK": "0"})
        assert done.returncode == 1 and "rank 0 of 2: cannot meet the others at 127.0.0.1:" in done.stderr
    done = train_tiny(dataset, tmp_path / "r", environment=environment)
    assert done.returncode == 1 and "rank 1 of 2: cannot meet the others at 127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("keep", [1, 2])
def test_what_a_damaged_newer_checkpoint_left_is_pruned_before_a_good_one(trained, tmp_path, keep):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    state = load_checkpoint(newest_valid(trained / "checkpoints"))
    for step in (1000, 2000):
        save_checkpoint(folder, state, step, keep=9, best_score=1.0 if step == 1000 else None)
    damaged = folder / "step-00002000.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    for step in (1100, 1200):
        assert is_valid(save_checkpoint(folder, state, step, keep=keep, best_score=None))
    left = {path.name for path in folder.glob("*.pt")}
    assert left == {"step-00001000.pt", "step-00001200.pt"} | ({"step-00001100.pt"} if keep == 2 else set())


def test_a_checkpoint_is_valid_at_every_moment_while_it_is_written_again(tmp_path, monkeypatch):
    path, seen = tmp_path / "step-00000001.pt", []
    files.write_checked(path, b"before")
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (replace(*names), seen.append(files.is_valid(path))))
    files.write_checked(path, b"after")
    assert len(seen) == 3 and all(seen) and path.read_bytes() == b"after"
    assert files.checksum_path(path).read_text().count("\n") == 1


@pytest.mark.parametrize("variable, value", [("RANK", "one"), ("WORLD_SIZE", "2.0"), ("LOCAL_RANK", "-1"),
                                             ("RANK", "1")])
def test_ranks_that_are_no_numbers_are_refused(dataset, tmp_path, variable, value):
    assert_refused(train_tiny(dataset, tmp_path / "r", environment={variable: value}), variable)


def test_a_signal_to_the_whole_group_spares_the_loader_workers(dataset, trained, tmp_path):
    """SLURM signals every process of a step, the workers too."""
    run = tmp_path / "r"
    process = start(dataset, run, "--train.resident", "never", "--train.num_workers", 1)
    wait_for_step(run, 1, process)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75 and "Traceback" not in err, err
    assert train_tiny(dataset, run).returncode == 0
    assert_equal_to_the_bit(run, trained)


def test_a_second_training_in_the_folder_is_refused(dataset, trained, tmp_path):
    run = tmp_path / "r"
    shutil.copytree(trained, run)
    with only_writer(run):
        assert_refused(train_tiny(dataset, run), "is writing into it", f"kill {os.getpid()}")


def test_a_damaged_newest_checkpoint_is_passed_over(dataset, trained, tmp_path):
    run = tmp_path / "r"
    shutil.copytree(trained, run)
    newest = run / "checkpoints" / "step-00000006.pt"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    assert not is_valid(newest)
    assert load_checkpoint(newest_valid(run / "checkpoints"))["step"] < 6
    done = train_tiny(dataset, run)
    assert done.returncode == 0 and "resumed at step" in done.stderr, done.stderr
    assert_equal_to_the_bit(run, trained)


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_several_ranks_learn_what_one_learns(dataset, trained, tmp_path, num_ranks):
    done = train_tiny(dataset, tmp_path / "r", launcher=torchrun(num_ranks))
    assert done.returncode == 0, done.stderr
    assert f"{num_ranks} ranks on cpu" in done.stderr
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


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_follows_full_precision(dataset, trained, tmp_path, precision):
    """Until the scaler of fp16 leaves out a step: its first factor is meant to be too large."""
    done = train_tiny(dataset, tmp_path / "r", "--train.precision", precision)
    assert done.returncode == 0, done.stderr
    ours, theirs = ([line["loss"] for line in records(run) if "loss" in line] for run in (tmp_path / "r", trained))
    assert ours[:2] == pytest.approx(theirs[:2], rel=0.02) and ours[-1] < ours[1]
    ours, theirs = ([line["validation"]["psnr"] for line in records(run) if "validation" in line][-1]
                    for run in (tmp_path / "r", trained))
    assert ours == pytest.approx(theirs, abs=0.2 if precision == "bf16" else 4)


@pytest.mark.parametrize("launcher", [(), "torchrun"], ids=["alone", "two ranks"])
def test_micro_batches_learn_what_the_whole_batch_learns(dataset, trained, tmp_path, launcher):
    done = train_tiny(dataset, tmp_path / "r", "--train.micro_batches", 2, launcher=torchrun(2) if launcher else ())
    assert done.returncode == 0, done.stderr
    losses = [[line["loss"] for line in records(run) if "loss" in line] for run in (tmp_path / "r", trained)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    one, other = (load_checkpoint(newest_valid(run / "checkpoints"))["network"] for run in (tmp_path / "r", trained))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6)


def test_the_published_setting_runs_too(dataset, tmp_path):
    """No skip, whole frames, batch 1, MSE, constant rate, the weights themselves: the report's protocol."""
    done = train_tiny(dataset, tmp_path / "r", "--model.skip", "none", "--train.patch_size", 0, "--train.batch_size", 1,
                      "--train.loss", "mse", "--train.final_lr", 1, "--train.ema_decay", 0, "--train.augment", "false",
                      "--train.warmup_steps", 0, "--train.steps", 3)
    assert done.returncode == 0, done.stderr
    state = load_checkpoint(newest_valid(tmp_path / "r" / "checkpoints"))
    for name, value in state["network"].items():
        assert torch.equal(value, state["weights"][name]), name


def test_only_the_chosen_frames_are_trained_on(dataset):
    manifest = read_manifest(dataset)
    whole, part = Split(manifest, "train"), Split(manifest, "train", num_frames=8)
    assert len(part) == 4 and part.centres == whole.centres[-4:]


def test_checkpoints_load_without_running_code(trained):
    for path in (trained / "checkpoints").glob("*.pt"):
        torch.load(path, weights_only=True)


def test_the_learning_rate_warms_up_and_follows_a_cosine():
    rates = [learning_rate(step, 110, 1.0, 10, 0.1) for step in range(110)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0 and rates[60] == pytest.approx(0.55) and rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_frames_without_a_value_are_not_in_the_loss():
    hr = torch.tensor([[1.0, float("nan")], [0.0, 2.0]])
    sr = torch.tensor([[0.0, 7.0], [0.0, 2.0]], requires_grad=True)
    loss = loss_of("mse", sr, hr)
    loss.backward()
    assert loss.item() == pytest.approx(1 / 4) and sr.grad[0, 1] == 0 and torch.isfinite(sr.grad).all()
    assert loss_of("mse", sr, hr, unit=255).item() == pytest.approx(255**2 / 4)
    assert loss_of("charbonnier", sr, torch.full((2, 2), float("nan"))).item() == 0


def test_the_losses_are_what_their_names_say():
    sr, hr = torch.tensor([0.0, 0.5]), torch.tensor([0.1, 0.5])
    assert loss_of("mse", sr, hr).item() == pytest.approx(0.005)
    assert loss_of("charbonnier", sr, hr).item() == pytest.approx((np.sqrt(0.01 + 1e-6) + 1e-3) / 2)


def test_settings_may_change_until_there_is_a_checkpoint(dataset, trained, tmp_path):
    run = tmp_path / "r"
    run.mkdir()
    config = json.loads((trained / "config.json").read_text())
    config["train"]["lr"] = 7
    rewrite(run / "config.json", config)
    assert train_tiny(dataset, run).returncode == 0
    assert_equal_to_the_bit(run, trained)


@pytest.mark.parametrize("more", [("--train.patch_size", 999), ("--train.num_frames", 999)])
def test_a_dry_run_refuses_what_the_training_would(dataset, tmp_path, more):
    assert_refused(train_tiny(dataset, tmp_path / "r", *more, "--dry-run"), more[0].removeprefix("--"))


def test_a_dry_run_tells_the_plan_and_touches_nothing(dataset, tmp_path):
    done = train_tiny(dataset, tmp_path / "r", "--dry-run")
    assert done.returncode == 0 and not (tmp_path / "r").exists()
    for words in ('"batch_size": 4', "23 training samples of 32x24 LR", "83,702 parameters", "6 of 4 samples",
                  "MB a rank"):
        assert words in done.stdout


def test_a_training_takes_the_memory_that_its_plan_states(dataset, tmp_path):
    experiment = Experiment(data=dataset, out=tmp_path / "r", model=ModelSettings(),
                            train=TrainSettings(batch_size=32, patch_size=16, steps=2, warmup_steps=1, validate_every=0,
                                                log_every=1, device="cpu"))
    manifest = read_manifest(dataset)
    stated = memory_of_rank(experiment, DataTerms.of(manifest, 1e-3).build(experiment.model), manifest, 1)
    code = (f"from pathlib import Path; from hpc_vsr.train import main; main(['--data', {str(dataset)!r}, '--out', "
            f"{str(experiment.out)!r}, '--train.batch_size', '32', '--train.patch_size', '16', '--train.steps', '2', "
            "'--train.warmup_steps', '1', '--train.log_every', '1', '--train.device', 'cpu'])")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    taken = max(line["memory_bytes"] for line in records(experiment.out) if "memory_bytes" in line)
    assert taken <= stated <= 2 * taken
    assert memory_of_rank(dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, batch_size=64)),
                          DataTerms.of(manifest, 1e-3).build(experiment.model), manifest, 1) > 1.3 * stated
