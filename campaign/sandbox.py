"""Stages of the program in forked processes, with a fault planted in them; forking spares importing torch."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from processes import list_session
from stages import LIBRARIES
from waiting import wait_at_most

from hpc_vsr import evaluate, launch, preprocess, train
from hpc_vsr.export import __main__ as export
from hpc_vsr.report import __main__ as report
from hpc_vsr.system.errors import exit_status
from hpc_vsr.upscale import __main__ as upscale

# What the stages load when they are wanted, loaded here once: every fork has it then.
for _module in ("data.build", "training.train", "training.plan", "evaluation.evaluate", "report.write",
                "upscale.loop", "export.formats", "cluster.local"):
    importlib.import_module(f"hpc_vsr.{_module}")
for _module in LIBRARIES:
    importlib.import_module(_module)

STAGES = {
    "preprocess": preprocess.main,
    "train": train.main,
    "evaluate": evaluate.main,
    "report": report.main,
    "upscale": upscale.main,
    "launch": launch.main,
    "export": export.main,
}
LIMIT = 240.0  # seconds, on a machine that has other work too
MEMORY = 12 << 30  # bytes of address space, most of which is never touched
MOST_MEMORY = 2 << 30  # bytes that a stage may really take; the inputs are small
FIRED = ".said-fired"


@dataclass
class Outcome:
    """The end of a process: its exit status (negative: the signal), what it said, and what was left of it.

    `memory` is its peak in bytes; `fired`, whether the operation came at which a fault was planted.
    """

    status: int | None
    text: str
    seconds: float
    orphans: int
    memory: int = 0
    fired: bool = False

    @property
    def is_tidy(self) -> bool:
        """Ended by itself or by its signal, in time, in bounded memory, without a traceback or an orphan."""
        return self.untidiness() is None

    def untidiness(self) -> str | None:
        if self.status is None:
            return "hangs"
        if self.orphans:
            return f"{self.orphans} orphans"
        if self.memory > MOST_MEMORY:
            return f"took {self.memory / 1e9:.1f} GB"
        return f"traceback: {self.last_line()}" if "Traceback" in self.text else None

    def mistold(self, *reasons: str) -> str | None:
        """Return what is wrong if a failure was not told by status 1 or 2 and a line with one of the reasons."""
        said = self.text.replace("\r", "\n").splitlines()
        lines = [line for line in said if line.startswith(("error: ", "failed: "))]
        if self.status not in (1, 2):
            return f"status {self.status}: {self.last_line()}"
        if not any(reason in line for line in lines for reason in reasons):
            return f"not named: {self.last_line()}"
        return None

    def last_line(self) -> str:
        lines = [line for line in self.text.replace("\r", "\n").splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""


class Process:
    """A stage in a forked process, in a session of its own."""

    def __init__(
        self,
        stage: str,
        argv: list,
        folder: Path,
        fault: Callable[[], None] | None = None,
        environment: Mapping[str, str] = {},
        function: Callable[[], int] | None = None,
    ):  # noqa: B006
        self.folder, self.started = folder, time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        self._said = folder / f".said-{os.getpid()}-{random.getrandbits(40):x}"
        main = STAGES.get(stage)
        sys.stdout.flush(), sys.stderr.flush()
        self.number = os.fork()
        if self.number == 0:
            status = 1
            try:
                os.setsid()
                multiprocessing.current_process()._config["daemon"] = False  # else it may have no loader processes
                os.chdir(folder)
                os.environ.update(environment)
                descriptor = os.open(self._said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(descriptor, 1), os.dup2(descriptor, 2)
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
                    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
                if fault is not None:
                    fault()
                status = function() if function else exit_status(main, [str(word) for word in argv])
                sys.stdout.flush(), sys.stderr.flush()
            finally:
                os._exit(status)

    def poll(self) -> bool:
        """Return True if it still runs."""
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        return False

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.number, number)

    def wait(self, limit: float = LIMIT) -> Outcome:
        hangs = not wait_at_most(limit, lambda: not self.poll())
        if hangs:
            self.send(signal.SIGKILL)
        seconds = time.monotonic() - self.started
        _, status, used = os.wait4(self.number, 0)
        orphans = _end_session(self.number)
        text = self._said.read_text(errors="replace") if self._said.exists() else ""
        self._said.unlink(missing_ok=True)
        fired = self.folder / FIRED
        has_fired = fired.exists()
        fired.unlink(missing_ok=True)
        status = None if hangs else os.waitstatus_to_exitcode(status)
        return Outcome(status, text, seconds, orphans, used.ru_maxrss << 10, has_fired)


def run(stage: str, argv: list, folder: Path, fault: Callable[[], None] | None = None, limit: float = LIMIT,
        **more) -> Outcome:
    """Run a stage to its end."""
    return Process(stage, argv, folder, fault, **more).wait(limit)


def call(function: Callable[[], None], folder: Path, limit: float = LIMIT) -> Outcome:
    """Run a function as a stage would be run: status 2 for an `InputError`."""
    return Process("", [], folder, function=lambda: exit_status(lambda _: function())).wait(limit)


def _end_session(session: int, grace: float = 3.0) -> int:
    """Return how many processes of a session outlive its leader by more than some seconds, and end them."""
    wait_at_most(grace, lambda: not list_session(session))
    left = list_session(session)
    for number in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    return len(left)


def let_run(seconds: float) -> None:
    """Let what was started run on. The moment of its fault is chosen by chance, so there is nothing to wait for."""
    time.sleep(seconds)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Encoders talk on standard error."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept), os.close(nowhere)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and ".said-" not in path.name}
