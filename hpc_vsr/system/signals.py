"""Being asked to stop: by SLURM before a time limit (SIGUSR2) or at preemption (SIGTERM), or by Ctrl-C (SIGINT)."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from typing import Any

LAUNCHER = "HPC_VSR_LAUNCHER"  # process that started this one and waits for it
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


@contextlib.contextmanager
def launching() -> Iterator[None]:
    """Processes that are started in this block are spared a Ctrl-C, and get SIGTERM when this process has ended."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # else Ctrl-C would reach them beside what we tell them
    os.environ[LAUNCHER] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[LAUNCHER]
        signal.signal(signal.SIGINT, before)


def follow_launcher() -> None:
    """In a process that was started while `launching`: SIGTERM when the process that started it ends, even killed."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None:
        return

    def follow() -> None:
        try:
            select.select([os.pidfd_open(int(launcher))], [], [])
        except ProcessLookupError:
            pass
        except OSError:  # Linux before 5.3 cannot tell
            return
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()


def interrupt_on_sigterm() -> None:
    """SIGTERM ends this process as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
