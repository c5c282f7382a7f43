"""A limit for all tests together, HPC_VSR_TEST_LIMIT in seconds: a run that somebody else cuts off has no summary."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from processes import list_children
from waiting import Patience

VARIABLE = "HPC_VSR_TEST_LIMIT"
CUT_OFF = 124  # exit status, as timeout(1)


class TimeLimit:
    """Ends the session at its limit, and says which tests have failed and which were running."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.running: dict[str, float] = {}
        self.done, self.failed = 0, []
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def pytest_runtest_logstart(self, nodeid):
        self.running[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid):
        self.running.pop(nodeid, None)
        self.done += 1

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report):
        if report.failed:
            reason = str(report.longrepr).strip().rpartition("\n")[2]
            self.failed.append(f"{report.nodeid} ({report.when}): {reason[:200]}")

    def pytest_sessionfinish(self):
        self._over.set()

    def summary(self) -> str:
        now = time.monotonic()
        oldest = sorted(self.running.items(), key=lambda item: item[1])
        lines = [f"time limit of {self.seconds:.0f} s: {self.done} tests had ended, {len(self.failed)} failed"]
        lines += [f"  failed   {line}" for line in self.failed]
        lines += [f"  running  {nodeid}, for {now - start:.0f} s" for nodeid, start in oldest]
        return "\n".join(lines)

    def _watch(self) -> None:
        patience = Patience()
        while patience.look() < self.seconds:
            if self._over.wait(1):
                return
        summary = self.summary()
        for worker in list_children(os.getpid()):  # else they complain after the summary
            os.kill(worker, signal.SIGKILL)
        os.write(2, f"\n{summary}\n".encode())
        os._exit(CUT_OFF)
