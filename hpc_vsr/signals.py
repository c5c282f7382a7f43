"""Being asked to stop: by SLURM before a time limit (SIGUSR2) or at preemption (SIGTERM), or by Ctrl-C (SIGINT)."""

from __future__ import annotations

import signal
from typing import Any


def hold_signals() -> None:
    """Keep what SLURM sends until a `StopFlag` is there; while torch is loading it would end the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR2))


class StopFlag:
    """Set by a signal; the loop answers at the next step boundary. A second Ctrl-C ends the process at once."""

    SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)

    def __init__(self):
        self.name: str | None = None
        self._before: dict = {}

    def __enter__(self) -> StopFlag:
        self._before = {number: signal.signal(number, self._set) for number in self.SIGNALS}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.SIGNALS)  # what came since `hold_signals`
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _set(self, number: int, _frame: Any) -> None:
        if self.name == "SIGINT" == signal.Signals(number).name:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
