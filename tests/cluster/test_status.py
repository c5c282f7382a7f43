"""status: the table of a job file's runs without SLURM; tests/cluster/test_slurm.py has it with."""

from __future__ import annotations

import json

import pytest
from stages import assert_refused, run_stage
from trainings import train_tiny

from hpc_vsr.system.lock import only_writer

pytestmark = pytest.mark.slow

OUTSIDE = {"PATH": "/nowhere"}  # a machine without SLURM


@pytest.fixture
def sweep(job, tmp_path):
    job.write_text(job.read_text() + '[sweep]\n"train.seed" = [0, 1, 2]\n')
    return job


def test_every_run_has_a_line_with_its_state(sweep, dataset, tmp_path):
    for point in (0, 1):
        done = run_stage("train", "--config", sweep, "--point", point, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    second = next((tmp_path / "runs" / "tiny").glob("seed-1-*"))
    for path in second.glob("checkpoints/step-00000006*"):
        path.unlink()
    text = run_stage("status", "--config", sweep, cwd=tmp_path, environment=OUTSIDE).stdout
    rows = [line.split() for line in text.splitlines() if line.startswith("seed-")]
    assert [row[1] for row in rows] == ["finished", "stopped", "not"] and rows[0][2:4] == ["6", "6"]
    assert rows[1][1:5] == ["stopped", "at", "step", "4"]  # of its newest checkpoint, from which it goes on
    assert text.splitlines()[-2:] == [
        "1 finished, 1 stopped, 1 not started",
        f"to go on: python -m hpc_vsr.launch --config {sweep} --cluster local"]
    with only_writer(second):
        text = run_stage("status", "--config", sweep, cwd=tmp_path, environment=OUTSIDE).stdout
    assert "1 running" in text and "steps/s" in text and "process" in text


def test_a_run_alone_is_one_line(dataset, tmp_path):
    assert train_tiny(dataset, tmp_path / "r").returncode == 0
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    arguments = [word for section in ("model", "train") for key, value in config[section].items()
                 for word in (f"--{section}.{key}", json.dumps(value) if not isinstance(value, str) else value)]
    text = run_stage("status", "--data", dataset, "--out", tmp_path / "r", *arguments, environment=OUTSIDE).stdout
    assert text.splitlines()[-1] == "1 finished"


def test_the_controller_is_spared(sweep, tmp_path):
    assert_refused(run_stage("status", "--config", sweep, "--watch", 1, cwd=tmp_path), "at least 10 seconds")
