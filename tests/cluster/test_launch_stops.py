"""`launch --cluster local` that is told to stop, or killed, leaves no process behind and its ranks have saved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from repository import ROOT
from trainings import TINY

pytestmark = pytest.mark.slow

STEPS = ("--train.steps", 300)


def start_launch(dataset: Path, folder: Path) -> subprocess.Popen:
    """On two ranks, in a process group as a terminal's."""
    (folder / "job.toml").write_text(f'data = "{dataset}"\n[resources]\nranks_per_node = 2\n')
    command = [sys.executable, "-m", "hpc_vsr.launch", "--config", "job.toml", "--out", "run",
               "--cluster", "local", *TINY, *STEPS, "--train.validate_every", 0, "--train.checkpoint_every", 1000]
    return subprocess.Popen([str(word) for word in command], cwd=folder, stderr=subprocess.PIPE, text=True,
                            stdout=subprocess.DEVNULL, start_new_session=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})


def processes_of(session: int) -> list[str]:
    """Command lines of those that live."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((entry / "cmdline").read_text())
        except (OSError, IndexError, ValueError):
            continue
    return found


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_its_ranks_save_and_end_with_it(dataset, tmp_path, stop_signal):
    run = tmp_path / "run"
    process = start_launch(dataset, tmp_path)
    while process.poll() is None and not (run / "metrics.jsonl").exists():
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[1]
    if stop_signal == signal.SIGINT:  # Ctrl-C at a terminal is for the whole group
        os.killpg(process.pid, stop_signal)
    else:
        process.send_signal(stop_signal)
    _, said = process.communicate(timeout=120)
    assert process.returncode == (-stop_signal if stop_signal == signal.SIGKILL else 75), said
    assert "Traceback" not in said
    deadline = time.monotonic() + 60
    while (left := processes_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    saved = [int(path.stem.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*.pt")]
    assert len(saved) == 1 and 0 < saved[0] < 300  # no checkpoint was due before the last step
