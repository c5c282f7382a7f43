"""Signals of SLURM while a program is loading."""

from __future__ import annotations

import signal
import subprocess
import sys

from repository import child_environment

PROGRAM = """
import sys
print("loading", flush=True)
sys.stdin.readline()
from hpc_vsr.system.signals import StopFlag
with StopFlag() as stop:
    print(stop.name)
"""


def test_a_signal_that_comes_while_loading_is_answered_later():
    process = subprocess.Popen([sys.executable, "-m", "hpc_vsr.signals", "-c", PROGRAM], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, env=child_environment())
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGUSR2)
    out, _ = process.communicate("go\n", timeout=300)
    assert process.returncode == 0 and out == "SIGUSR2\n"
