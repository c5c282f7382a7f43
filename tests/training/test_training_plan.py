"""The dry run of a training prints its plan, and the plan is right."""

from __future__ import annotations

import dataclasses
import re

import pytest
from patterns import moving_pattern
from stages import assert_refused, run_code, run_stage
from trainings import records, train_tiny
from videos import write_video

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.experiment.settings import Experiment, TrainSettings
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.runs.trained import DataTerms
from hpc_vsr.training.plan import memory_of_rank


@pytest.mark.parametrize("more", [("--train.patch_size", 999), ("--train.num_frames", 999)])
def test_a_dry_run_refuses_what_the_training_would(dataset, tmp_path, more):
    assert_refused(train_tiny(dataset, tmp_path / "r", *more, "--dry-run"), more[0].removeprefix("--"))


def test_a_dry_run_tells_the_plan_and_touches_nothing(dataset, tmp_path):
    done = train_tiny(dataset, tmp_path / "r", "--dry-run")
    assert done.returncode == 0 and not (tmp_path / "r").exists()
    for words in ('"batch_size": 4', "23 training samples of 32x24 LR", "83,702 parameters", "6 of 4 samples",
                  "MB a rank"):
        assert words in done.stdout


def test_frames_that_are_validated_in_tiles_have_a_plan(tmp_path):
    source = write_video(tmp_path / "wide.mkv", moving_pattern(30, 48, 832), codec="ffv1")
    done = run_stage("preprocess", "--video", source, "--shards", 3, "--out", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    for more in ((), ("--train.sigma", "0..6")):
        done = train_tiny(tmp_path / "data", tmp_path / "r", *more, "--dry-run")
        assert done.returncode == 0, done.stderr
        assert re.search(r"up to [0-9.]+ MB a rank", done.stdout) and "of 416x24 LR" in done.stdout


@pytest.mark.slow
def test_a_training_takes_the_memory_that_its_plan_states(dataset, tmp_path, monkeypatch):
    fresh = run_code("import hpc_vsr.training.trainer, hpc_vsr.system.memory as memory; print(memory.process_memory())")
    monkeypatch.setattr("hpc_vsr.training.plan.process_memory", lambda: int(fresh.stdout))  # not that of the tests
    experiment = Experiment(data=dataset, out=tmp_path / "r", model=ModelSettings(),
                            train=TrainSettings(batch_size=32, patch_size=16, steps=2, warmup_steps=1, validate_every=0,
                                                log_every=1, device="cpu"))
    manifest = read_manifest(dataset)
    stated = memory_of_rank(experiment, DataTerms.of(manifest, 1e-3).build(experiment.model), manifest, 1)
    code = (f"from pathlib import Path; from hpc_vsr.train import main; main(['--data', {str(dataset)!r}, '--out', "
            f"{str(experiment.out)!r}, '--train.batch_size', '32', '--train.patch_size', '16', '--train.steps', '2', "
            "'--train.warmup_steps', '1', '--train.log_every', '1', '--train.device', 'cpu'])")
    done = run_code(code)
    assert done.returncode == 0, done.stderr
    taken = max(line["memory_bytes"] for line in records(experiment.out) if "memory_bytes" in line)
    assert taken <= stated <= 2 * taken
    assert memory_of_rank(dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, batch_size=64)),
                          DataTerms.of(manifest, 1e-3).build(experiment.model), manifest, 1) > 1.3 * stated
