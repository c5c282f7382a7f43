"""Being asked to stop: by SLURM before a time limit (SIGUSR2) or at preemption (SIGTERM), or by Ctrl-C (SIGINT).

`python -m hpc_vsr.signals ARGUMENTS...` is `python ARGUMENTS...` that keeps SLURM's signals until it can answer them.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

OF_SLURM = (signal.SIGTERM, signal.SIGUSR2)


def hold_signals() -> None:
    """Keep what SLURM sends until a `StopFlag` is there; while torch is loading it would end the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, OF_SLURM)


def release_signals() -> None:
    """Take what was kept, and answer signals from now on."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_SLURM)


class StopFlag:
    """Set by a signal; the loop answers at the next step boundary. A second Ctrl-C ends the process at once."""

    SIGNALS = (*OF_SLURM, signal.SIGINT)

    def __init__(self):
        self.name: str | None = None
        self._before: dict = {}

    def __enter__(self) -> StopFlag:
        self._before = {number: signal.signal(number, self._set) for number in self.SIGNALS}
        release_signals()
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _set(self, number: int, _frame: Any) -> None:
        if self.name == "SIGINT" == signal.Signals(number).name:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name


if __name__ == "__main__":
    hold_signals()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])  # the new program inherits what is held
