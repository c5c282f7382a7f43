"""Trainings that are told to stop, or killed, go on to the same bits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from files import rewrite
from stages import assert_refused, run_code, start_stage
from trainings import TINY, assert_equal_to_the_bit, records, train_tiny
from waiting import wait_until

from hpc_vsr.experiment.finished import has_finished
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.runs.checkpoints import Checkpoints
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.state import load_checkpoint
from hpc_vsr.system.config import from_dict
from hpc_vsr.system.lock import only_writer

pytestmark = pytest.mark.slow

LONG = ("--train.steps", 40)  # the signal comes after the first step, and must not come after the last


@pytest.fixture(scope="module")
def trained_long(tmp_path_factory, dataset) -> Path:
    """A finished run that was not disturbed."""
    run = tmp_path_factory.mktemp("long") / "run"
    assert train_tiny(dataset, run, *LONG).returncode == 0
    return run


def start(dataset: Path, run: Path, *more) -> subprocess.Popen:
    return start_stage("train", "--data", dataset, "--out", run, *TINY, *more)


def wait_for_step(run: Path, step: int, process: subprocess.Popen) -> None:
    metrics = run / "metrics.jsonl"
    wait_until(lambda: process.poll() is not None or (metrics.exists() and f'"step": {step},' in metrics.read_text()),
               f"step {step}")


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_asked_to_stop_it_saves_and_resumes_to_the_same_bits(dataset, trained_long, tmp_path, stop_signal):
    run = tmp_path / "r"
    process = start(dataset, run, *LONG)
    wait_for_step(run, 1, process)
    process.send_signal(stop_signal)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75 and "the same command continues" in err, err
    assert load_checkpoint(Checkpoints(run / "checkpoints").newest())["step"] < 40
    assert train_tiny(dataset, run, *LONG).returncode == 0
    assert_equal_to_the_bit(run, trained_long)


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_killed_it_resumes_to_the_same_bits(dataset, trained, tmp_path, step):
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


IN_VALIDATION = """
import os, signal, sys
from hpc_vsr import train
from hpc_vsr.training import trainer
from hpc_vsr.system.errors import exit_status
real, left = trainer.validate, [{number}]

def validate(*arguments, **keywords):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.{signal})
    return real(*arguments, **keywords)
trainer.validate = validate
sys.exit(exit_status(train.main, sys.argv[1:]))
"""


def train_until_validation(dataset: Path, run: Path, stop_signal: str, number: int) -> subprocess.CompletedProcess:
    """A training that gets that signal when its life begins to validate for that time."""
    return run_code(IN_VALIDATION.format(signal=stop_signal, number=number), "--data", dataset, "--out", run, *TINY,
                    "--train.checkpoint_every", 100)


@pytest.mark.parametrize("stop_signal", ["SIGUSR2", "SIGKILL"])
def test_stopped_in_a_validation_it_has_saved_and_validates_when_it_resumes(dataset, trained, tmp_path, stop_signal):
    """A validation of many frames may take longer than the time that is left, and it may be what fails."""
    run = tmp_path / "r"
    for step, number in ((3, 1), (6, 2)):  # where TINY validates; its second life begins with what is due
        done = train_until_validation(dataset, run, stop_signal, number)
        assert done.returncode == (75 if stop_signal == "SIGUSR2" else -9), done.stderr
        state = load_checkpoint(Checkpoints(run / "checkpoints").newest())
        assert state["step"] == step and not has_finished(RunFolder(run), from_dict(Experiment, state["config"], ""))
        assert not [record for record in records(run) if record["step"] == step and "validation" in record]
    done = train_tiny(dataset, run, "--train.checkpoint_every", 100)
    assert done.returncode == 0, done.stderr
    assert has_finished(RunFolder(run), from_dict(Experiment, state["config"], ""))
    assert_equal_to_the_bit(run, trained)
    ours, theirs = ([(record["step"], record["validation"]) for record in records(folder) if "validation" in record]
                    for folder in (run, trained))
    assert ours == theirs
    assert json.loads((run / "checkpoints" / "best.json").read_text()) == json.loads(
        (trained / "checkpoints" / "best.json").read_text())


READ_LATE = """
import sys
from hpc_vsr import train
from hpc_vsr.training import trainer
from hpc_vsr.system.errors import exit_status
trainer.STEPS_LATE = {"cpu": 1}
sys.exit(exit_status(train.main, sys.argv[1:]))
"""


def test_figures_that_are_read_a_step_late_are_the_same(dataset, trained_long, tmp_path):
    run, options = tmp_path / "r", ("--train.log_every", 3, "--train.checkpoint_every", 7)
    done = run_code(READ_LATE, "--data", dataset, "--out", run, *TINY, *LONG, *options)
    assert done.returncode == 0, done.stderr
    assert_equal_to_the_bit(run, trained_long)
    losses = {record["step"]: record["loss"] for record in records(trained_long) if "loss" in record}
    for record in records(run):
        if "loss" in record:
            steps = range(3 * ((record["step"] - 1) // 3) + 1, record["step"] + 1)
            assert record["loss"] == pytest.approx(np.mean([losses[step] for step in steps]), rel=1e-6)
    assert [record["validation"] for record in records(run) if "validation" in record] == [
        record["validation"] for record in records(trained_long) if "validation" in record]


def test_after_a_signal_to_the_whole_group_and_its_loader_workers_it_resumes(dataset, trained_long, tmp_path):
    """SLURM signals every process of a step, the workers too."""
    run = tmp_path / "r"
    process = start(dataset, run, *LONG, "--train.resident", "never", "--train.num_workers", 1)
    wait_for_step(run, 1, process)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75 and "Traceback" not in err, err
    assert train_tiny(dataset, run, *LONG).returncode == 0
    assert_equal_to_the_bit(run, trained_long)


def test_a_second_training_in_the_folder_is_refused(dataset, trained, tmp_path):
    run = tmp_path / "r"
    shutil.copytree(trained, run)
    with only_writer(run):
        assert_refused(train_tiny(dataset, run), "is writing into it", f"kill {os.getpid()}")
