"""How far a run is and how it ended, as the files of its folder say."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainings import write_run

from hpc_vsr.cluster.state import RunState
from hpc_vsr.experiment.progress import read_progress
from hpc_vsr.experiment.settings import Experiment, TrainSettings
from hpc_vsr.status import _cells
from hpc_vsr.system.lock import only_writer

NAN = float("nan")


@pytest.mark.parametrize("step, losses, bad, precision, state", [
    (60, [0.1] * 60, 0, "fp32", "finished"),
    (60, [0.1] * 59 + [NAN], 1, "fp32", "diverged"),
    (60, [NAN] * 60, 60, "fp32", "diverged"),
    (60, [0.1] * 60, 3, "bf16", "diverged"),  # the gradients of the last three steps, with finite losses
    (60, [0.1] * 60, 3, "fp16", "finished"),  # the scaler looks for its factor
    (60, [NAN] + [0.1] * 59, 0, "fp32", "finished"),  # a bad batch at the start
    (4, [0.1] * 4 + [NAN] * 3, 0, "fp32", "diverged"),  # gave up after its last checkpoint
    (0, [NAN] * 3, 0, "fp32", "diverged"),
    (4, [0.1] * 4 + [NAN], 0, "fp32", "stopped"),  # one bad batch, and killed
    (4, [0.1] * 7, 0, "fp32", "stopped"),
    # the loss overflows, and its gradient is finite
    (60, [NAN] * 60, 0, "fp32", "diverged"),
    (40, [0.1] + [NAN] * 39, 0, "fp16", "diverged"),
    (60, [0.1] * 59 + [NAN], 0, "fp32", "finished"),  # one bad batch at the end
    (0, [], 0, "fp32", "not started"),
])
def test_a_diverged_run_is_told_from_a_bad_batch(tmp_path, step, losses, bad, precision, state):
    run = write_run(tmp_path / "x", step, losses, bad, precision=precision)
    progress = read_progress(run)
    assert progress.state == state
    assert progress.step == (max(step, len(losses)) if state == "diverged" else step)


def test_a_run_before_its_first_checkpoint_has_the_settings_of_its_configuration(tmp_path):
    run = write_run(tmp_path / "x", 0, [0.1] * 40, steps=100, batch_size=8)
    asked = Experiment(data=Path("data/x"), out=run.path, train=TrainSettings(steps=30, batch_size=8))
    with only_writer(run.path):
        progress, other = read_progress(run), read_progress(run, asked)
    assert (progress.state, progress.step, progress.steps, progress.batch_size) == ("running", 40, 100, 8)
    assert (other.steps, other.other) == (30, ("train.steps is 100 there, 30 now",))
    assert _cells(RunState(run, "running", progress, "", ""))[2:7] == ["40", "100", "", "4", "15 s"]
    assert _cells(RunState(run, "running", other, "", ""))[2:7] == ["40", "30", "", "4", ""]  # 10 more than asked for
    # nobody holds it, and it has nothing to lose
    assert read_progress(run, asked).other == () and read_progress(run).sentence == "stopped at step 0 of 100"
    run.config.write_text("damaged")
    with only_writer(run.path):
        assert read_progress(run).sentence == "running at step 40"
