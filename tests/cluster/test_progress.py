"""How far a run is and how it ended, as the files of its folder say."""

from __future__ import annotations

import pytest
from trainings import write_run

from hpc_vsr.experiment.progress import read_progress

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
