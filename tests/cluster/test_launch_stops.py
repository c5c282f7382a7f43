"""`launch --cluster local` that is told to stop, or killed, leaves no process behind and its ranks have saved."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from processes import list_session
from stages import start_stage
from trainings import TINY
from waiting import wait_until

pytestmark = pytest.mark.slow

STEPS = ("--train.steps", 300)


def start_launch(dataset: Path, folder: Path) -> subprocess.Popen:
    """On two ranks, in a process group as a terminal's."""
    (folder / "job.toml").write_text(f'data = "{dataset}"\n[resources]\nranks_per_node = 2\n')
    return start_stage("launch", "--config", "job.toml", "--out", "run", "--cluster", "local", *TINY, *STEPS,
                       "--train.validate_every", 0, "--train.checkpoint_every", 1000, cwd=folder)


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_its_ranks_save_and_end_with_it(dataset, tmp_path, stop_signal):
    run = tmp_path / "run"
    process = start_launch(dataset, tmp_path)
    wait_until(lambda: process.poll() is not None or (run / "metrics.jsonl").exists(), "the first step")
    assert process.poll() is None, process.communicate()[1]
    if stop_signal == signal.SIGINT:  # Ctrl-C at a terminal is for the whole group
        os.killpg(process.pid, stop_signal)
    else:
        process.send_signal(stop_signal)
    _, said = process.communicate(timeout=300)
    assert process.returncode == (-stop_signal if stop_signal == signal.SIGKILL else 75), said
    assert "Traceback" not in said
    wait_until(lambda: not list_session(process.pid), "its processes to end", seconds=60)
    saved = [int(path.stem.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*.pt")]
    assert len(saved) == 1 and 0 < saved[0] < 300  # no checkpoint was due before the last step
