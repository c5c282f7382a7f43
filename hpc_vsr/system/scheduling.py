"""Keeps the scheduling of this process, which a library changes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def kept_scheduling() -> Iterator[None]:
    """Give all threads of this process the scheduling back that it had before the block.

    SVT-AV1 makes the process that opens it, and its own threads, real-time ones of the highest priority if it may, as
    for root. Threads that wait for each other then keep everything else from the processor, and may wait for ever.
    """
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for path in Path("/proc/self/task").iterdir():
            thread = int(path.name)
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if os.sched_getscheduler(thread) != before[0]:
                    os.sched_setscheduler(thread, *before)
