"""Being asked to stop: by SLURM before a time limit (SIGUSR2) or at preemption (SIGTERM)."""

from __future__ import annotations

import signal
from typing import Any


class StopFlag:
    """Set by SIGTERM and SIGUSR2; the loop answers at the next step boundary. The handler does nothing else."""

    SIGNALS = (signal.SIGTERM, signal.SIGUSR2)

    def __init__(self):
        self.name: str | None = None
        self._before: dict = {}

    def __enter__(self) -> StopFlag:
        self._before = {number: signal.signal(number, self._set) for number in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _set(self, number: int, _frame: Any) -> None:
        self.name = signal.Signals(number).name
