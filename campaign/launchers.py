"""Ranks that mpiexec or `launch` started, of which one is killed, or what started them: all end, and none is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from faults import LOST, NOT_TRIED, Kind, Result
from inputs import must
from kills import start_ranks
from machine import find_mpiexec
from processes import list_processes
from repository import child_environment
from sandbox import let_run
from waiting import wait_at_most
from world import OF_THE_JOB, Stage, World, weights

RANKS = 3
ENDS_WITHIN = 60.0  # seconds, on a machine that has other work too
LEFT_AFTER = 30.0
PATIENCE = 240.0


class Command:
    """A command line in a session of its own, as at a terminal."""

    def __init__(self, words: list, folder: Path):
        self.folder, self._said = folder, folder / ".said-command"
        folder.mkdir(parents=True, exist_ok=True)
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                [str(word) for word in words],
                stdout=said, stderr=said, cwd=folder, env=child_environment(), start_new_session=True,
            )

    @property
    def number(self) -> int:
        return self._process.pid

    def runs(self) -> bool:
        return self._process.poll() is None

    def workers(self, module: str) -> list[int]:
        """Its processes that run a module of ours."""
        return [number for number, words in self._processes().items() if "-m" in words and module in words]

    def wait(self, limit: float) -> int | None:
        """The exit status; None, and all of it killed, if it does not end."""
        try:
            return self._process.wait(limit)
        except subprocess.TimeoutExpired:
            return None

    def text(self) -> str:
        return self._said.read_text(errors="replace")

    def fault(self, status: int | None) -> str | None:
        """Return what is wrong with its end, or None. Its processes have time to follow; then they are killed."""
        wait_at_most(LEFT_AFTER, lambda: not self._processes())
        left = self._processes()
        for number in left:
            os.kill(number, signal.SIGKILL)
        text = self.text()
        self._said.unlink()
        if status is None:
            return f"does not end: {text[-200:]}"
        if left:
            return f"{len(left)} orphans"
        return f"traceback: {text[-300:]}" if "Traceback" in text else None

    def _processes(self) -> dict[int, list[str]]:
        """All whose command line or working folder names our folder, wherever a launcher has put them."""
        ours = str(self.folder)
        return {number: words for number, (words, here) in list_processes().items() if number != os.getpid()
                and (str(here).startswith(ours) or any(ours in word for word in words))}


def _rank_of_mpi(world: World, rng: random.Random, folder: Path) -> Result:
    """SIGKILL or SIGTERM of one of three ranks of preprocessing or upscaling."""
    kind, program = f"a signal to one of {RANKS} MPI ranks", find_mpiexec()
    if program is None:
        return Result(kind, NOT_TRIED, "no mpiexec")
    stage: Stage = world.stages[rng.choice(["preprocess", "preprocess", "upscale", "upscale images"])]
    module = f"hpc_vsr.{stage.name}"
    words = [program, "-n", RANKS, sys.executable, "-m", module, *stage.prepare(folder)]
    command = Command(words, folder)
    wait_at_most(PATIENCE, lambda: not command.runs() or len(command.workers(module)) >= RANKS)
    let_run(rng.random() * (2.5 if stage.name == "preprocess" else 9))
    ranks = [number for number in command.workers(module) if number != command.number]
    came = command.runs() and bool(ranks)
    if came:
        os.kill(rng.choice(ranks), rng.choice((signal.SIGKILL, signal.SIGTERM)))
    if fault := command.fault(command.wait(ENDS_WITHIN)):
        return Result(kind, LOST, f"{stage.title}: {fault}")
    again = Command(words, folder)
    status = again.wait(PATIENCE)
    if status != 0:
        return Result(kind, LOST, f"{stage.title} again: {status}: {again.text()[-300:]}")
    if fault := again.fault(status) or stage.faults_of(folder):
        return Result(kind, LOST, f"{stage.title} again: {fault}")
    return Result(kind, "survived") if came else Result(kind, NOT_TRIED, "it had ended before")


def _launch(world: World, rng: random.Random, folder: Path) -> Result:
    """Ctrl-C at the terminal, SIGTERM or SIGKILL of `launch --cluster local` while two ranks train."""
    kind = "a signal to launch --cluster local"

    def start(place: Path) -> Command:
        words = ["-m", "hpc_vsr.launch", "--config", world.folder / "job.toml", "--out", place / "run", "--cluster",
                 "local", "--resources.ranks_per_node", 2]
        return Command([sys.executable, *words], place)

    command, number = start(folder), rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL))
    let_run(1 + rng.random() * 12)
    if not command.runs():
        return Result(kind, NOT_TRIED, "it had ended before")
    (os.killpg if number == signal.SIGINT else os.kill)(command.number, number)
    status = command.wait(ENDS_WITHIN)
    if fault := command.fault(status):
        return Result(kind, LOST, f"{number.name}: {fault}")
    if status not in (0, 1, 75, -number):
        return Result(kind, LOST, f"{number.name}: status {status}")
    again = start(folder)
    status = again.wait(PATIENCE)
    if status != 0:
        return Result(kind, LOST, f"{number.name}, again: {status}: {again.text()[-300:]}")
    fault = again.fault(status)
    left = [path.name for path in folder.rglob("*") if path.name.endswith((".partial", ".lock", ".next"))]
    if fault or left or weights(folder / "run") != _undisturbed(world):
        return Result(kind, LOST, f"{number.name}, again: {fault or left or 'other weights'}")
    return Result(kind, "survived")


def _undisturbed(world: World) -> dict:
    """Return what two ranks learn with the settings of the job; each worker of the campaign trains them once."""
    place = world.folder / "reference" / f"launch-{os.getpid()}"
    if not place.exists():
        for process in start_ranks(world, place, place / "run", more=OF_THE_JOB):
            must(process.wait())
    return weights(place / "run")


KINDS = [
    Kind(f"a signal to one of {RANKS} MPI ranks", _rank_of_mpi, 2),
    Kind("a signal to launch --cluster local", _launch, 1),
]
