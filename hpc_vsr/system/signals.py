"""Signals that ask a stage to stop: SIGUSR2 before SLURM's time limit, SIGTERM at preemption, SIGINT from Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from typing import Any

LAUNCHER = "HPC_VSR_LAUNCHER"  # process number of the `launch` that started this process and waits for it
SLURM_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


def hold_signals() -> None:
    """Block SLURM's signals until there is a `StopFlag`; while torch is loading they would end the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SLURM_SIGNALS)


def release_signals() -> None:
    """Unblock SLURM's signals; those that came meanwhile arrive now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SLURM_SIGNALS)


class StopFlag:
    """A flag that a signal sets and that a loop checks after each step. A second Ctrl-C ends the process at once."""

    SIGNALS = (*SLURM_SIGNALS, signal.SIGINT)

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
    """Start processes in this block that ignore Ctrl-C, and that `follow_launcher` ends with this process."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # they get our SIGTERM, and Ctrl-C would be a second signal
    os.environ[LAUNCHER] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[LAUNCHER]
        signal.signal(signal.SIGINT, before)


def follow_launcher() -> None:
    """Send this process SIGTERM when the process that started it inside `launching` ends or is killed."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None:
        return

    def follow() -> None:
        try:
            select.select([os.pidfd_open(int(launcher))], [], [])
        except ProcessLookupError:
            pass
        except OSError:  # Linux before 5.3 has no such call
            return
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()


def interrupt_on_sigterm() -> None:
    """Make SIGTERM end this process as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
