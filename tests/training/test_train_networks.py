"""Training that is particular to a network: the two stages of previous, the flow of flow4x, each network on ranks."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from stages import run_stage, torchrun
from trainings import assert_equal_to_the_bit, records, train_tiny

from hpc_vsr.runs.state import load_checkpoint

pytestmark = pytest.mark.slow


def test_the_first_stage_is_trained_alone_and_frozen_then(dataset, tmp_path):
    """previous in two stages: six steps of the 2D part, then six of the 3D part; a resumed run knows its stage."""
    run, stopped = tmp_path / "r", tmp_path / "s"
    arguments = ("--model.name", "previous", "--model.skip", "none", "--train.steps", 12,
                 "--train.first_stage_steps", 6, "--train.keep_checkpoints", 12, "--train.ema_decay", 0)
    assert train_tiny(dataset, run, *arguments).returncode == 0
    states = {step: load_checkpoint(run / "checkpoints" / f"step-{step:08d}.pt")["network"] for step in (2, 6, 8, 12)}
    for name, value in states[6].items():
        in_first = ".first_stage." in name
        assert torch.equal(states[2][name], value) != in_first, name  # what is learned up to step 6
        assert torch.equal(value, states[12][name]) == in_first, name  # and after it
    rates = {line["step"]: line["lr"] for line in records(run) if "lr" in line}
    assert rates[7] == rates[1]  # each stage has its own warm-up
    best = json.loads((run / "checkpoints" / "best.json").read_text())
    assert best["step"] > 6

    shutil.copytree(run, stopped)
    for path in (stopped / "checkpoints").glob("*"):
        if path.name[:13] not in ("step-00000002", "step-00000008"):
            path.unlink()
    assert train_tiny(dataset, stopped, *arguments).returncode == 0
    assert_equal_to_the_bit(run, stopped)


@pytest.mark.parametrize(("name", "depth"), [("previous", ()), ("parallel5", ()),
                                             ("compact", ("--model.n_2d", 5, "--model.n_3d", 5))])
def test_every_network_trains_on_two_ranks(dataset, tmp_path, name, depth):
    done = train_tiny(dataset, tmp_path / "r", "--model.name", name, *depth, "--train.steps", 2, launcher=torchrun(2))
    assert done.returncode == 0, done.stderr


def test_flow4x_trains_and_its_flow_is_measured(clip, tmp_path):
    made = run_stage("preprocess", "--video", clip, "--shards", 3, "--degradation.scale", 4, "--out", tmp_path / "d")
    assert made.returncode == 0, made.stderr
    done = train_tiny(tmp_path / "d", tmp_path / "r", "--model.name", "flow4x", "--train.patch_size", 8,
                      "--train.steps", 2, launcher=torchrun(2))
    assert done.returncode == 0, done.stderr
    assert run_stage("evaluate", "--run", tmp_path / "r").returncode == 0
    flow = json.loads((tmp_path / "r" / "metrics-test.json").read_text())["flow"]
    assert flow["pairs"] == 4 * flow["frames"] and min(flow[name] for name in ("learned", "dis", "zero")) > 0
    assert run_stage("report", tmp_path / "r").returncode == 0
    assert 'id="flow"' in (tmp_path / "r" / "report" / "index.html").read_text()
