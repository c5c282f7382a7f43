"""Shows the progress of a long stage, with rate and time left: a bar on a terminal, a line every 10 s in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0
Item = TypeVar("Item")


class Progress:
    """A counter of work done, shown on standard error.

    Parameters
    ----------
    total : int
        Amount of work.
    label, unit : str
        Name of the stage ("training"), and what is counted ("step").
    initial : int
        Work that an earlier run of the same command has done; it does not count for the rate.
    shown : bool
        False on every rank but the main one.
    """

    def __init__(self, total: int, label: str, unit: str, initial: int = 0, shown: bool = True):
        self.total, self.label, self.unit, self.done, self.initial = total, label, unit, initial, initial
        self.shown = shown
        self.started = self.last_line = time.monotonic()
        self.bar = None
        if shown and sys.stderr.isatty():
            self.bar = tqdm(total=total, desc=label, unit=unit, initial=initial, dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        if self.bar is not None:
            self.bar.close()
        elif self.shown and self.done > self.initial:
            self._print_line()

    def advance(self, count: int = 1, figures: str = "") -> None:
        """Add `count` to the work done; `figures` (loss, PSNR) appear at the end of the bar or line."""
        self.done += count
        if self.bar is not None:
            self.bar.set_postfix_str(figures, refresh=False)
            self.bar.update(count)
        elif self.shown and self.done < self.total and time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            self._print_line(figures)

    def say(self, text: str) -> None:
        """Print a line without breaking the bar."""
        if self.shown:
            tqdm.write(text, file=sys.stderr)

    def _print_line(self, figures: str = "") -> None:
        self.last_line = time.monotonic()
        rate = (self.done - self.initial) / max(self.last_line - self.started, 1e-9)
        left = "done" if self.done >= self.total else f"{format_seconds((self.total - self.done) / rate)} left"
        tail = f"  {figures}" if figures else ""
        print(f"{self.label}: {self.done}/{self.total} {self.unit}s  {rate:.3g}/s  {left}{tail}",
              file=sys.stderr, flush=True)


class Rate:
    """A meter of work per second between two calls of `restart`, which leaves out the time outside of the loop."""

    def __init__(self):
        self.amount, self.seconds, self._since = 0.0, 0.0, time.monotonic()

    def timed(self, work: Iterable[Item]) -> Iterator[Item]:
        """Yield the same items; the time from the request for an item until `add` counts."""
        items = iter(work)
        while True:
            self._since = time.monotonic()
            try:
                item = next(items)
            except StopIteration:
                return
            yield item

    def add(self, amount: float) -> None:
        """Add the amount of work done with the item."""
        self.amount, self.seconds = self.amount + amount, self.seconds + time.monotonic() - self._since

    def restart(self) -> float:
        """Return the amount per second since the last call, and start anew."""
        rate = self.amount / max(self.seconds, 1e-9)
        self.amount = self.seconds = 0.0
        return rate


def format_seconds(seconds: float) -> str:
    """Return a duration for people: '8 s', '4 min 05 s', '30 h 12 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
