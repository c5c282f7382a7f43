"""Waiting for a condition. This is the only place of the tests and the campaign that polls.

A virtual machine may stand still for minutes, and its clocks go on. No wait counts that: however long it was away, a
look at the clock adds at most a few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

MOST_AT_ONCE = 5.0  # seconds that are counted from one look at the clock to the next


class Patience:
    """The seconds since it was made, without those during which the machine stood still; look at it often."""

    def __init__(self):
        self.seconds, self._seen = 0.0, time.monotonic()

    def look(self) -> float:
        now = time.monotonic()
        self.seconds += min(now - self._seen, MOST_AT_ONCE)
        self._seen = now
        return self.seconds


def wait_at_most(seconds: float, condition: Callable[[], object]) -> object:
    """Wait until `condition` is true, or for so many seconds, and return its last value."""
    patience = Patience()
    while True:
        asked = time.monotonic()
        value = condition()
        answered = time.monotonic()
        if value or patience.look() > seconds:
            return value
        time.sleep(max(0.002, 5 * (answered - asked)))  # a file is asked for often, SLURM is spared


def wait_until(condition: Callable[[], object], what: str, tell: Callable[[], str] = lambda: "", seconds: float = 300):
    """Return the value of `condition` once it is true. Raise `TimeoutError` with what `tell` says if it never is."""
    value = wait_at_most(seconds, condition)
    if not value:
        raise TimeoutError(f"waited {seconds:.0f} s for {what}\n{tell()}")
    return value
