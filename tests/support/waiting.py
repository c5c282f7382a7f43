"""Waiting for a condition. This is the only place of the tests and the campaign that polls."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_at_most(seconds: float, condition: Callable[[], object]) -> object:
    """Wait until `condition` is true, or for so many seconds, and return its last value."""
    end = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        value = condition()
        answered = time.monotonic()
        if value or answered > end:
            return value
        time.sleep(max(0.002, 5 * (answered - asked)))  # a file is asked for often, SLURM is spared


def wait_until(condition: Callable[[], object], what: str, tell: Callable[[], str] = lambda: "", seconds: float = 300):
    """Return the value of `condition` once it is true. Raise `TimeoutError` with what `tell` says if it never is."""
    value = wait_at_most(seconds, condition)
    if not value:
        raise TimeoutError(f"waited {seconds:.0f} s for {what}\n{tell()}")
    return value
