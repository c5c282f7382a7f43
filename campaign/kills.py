"""Processes that end at any moment, and file systems that fail at any operation; the same command finishes."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from disk import ANSWERS, AtOperation, free_space_is_not_seen, limit_file_size, small_disk
from faults import LOST, NOT_TRIED, Kind, Result, verdict
from sandbox import Process, let_run
from trainings import TINY
from world import Stage, World, weights

from hpc_vsr.system.errors import CAN_CONTINUE


def _finish(kind: str, stage: Stage, folder: Path, before: list) -> Result:
    """A stage that ended with 0 is right; and the same command again makes what it makes without a fault."""
    if before[-1].status == 0 and (faults := stage.faults_of(folder)) is not None:
        return Result(kind, LOST, f"{stage.title} ended with 0: {faults}")
    again = stage.run(folder)
    if again.status != 0:
        return Result(kind, LOST, f"{stage.title} again ends with {again.status}: {again.last_line()}")
    return verdict(kind, [*before, again], stage.faults_of(folder))


def _signal_at_random(kind: str, number: int, expected: tuple) -> Kind:
    def try_one(world: World, rng: random.Random, folder: Path) -> Result:
        stage = rng.choice(list(world.stages.values()))
        ended, came = [], False
        for _ in range(rng.choice((1, 1, 2))):
            process = stage.start(folder)
            let_run(rng.random() * stage.undisturbed.seconds)
            came |= process.poll()
            process.send(number)
            done = process.wait()
            ended.append(done)
            if done.status not in (0, -number, *expected):
                return Result(kind, LOST, f"{stage.title}: status {done.status}: {done.last_line()}")
        return _finish(kind, stage, folder, ended) if came else Result(kind, NOT_TRIED, "it had ended before")

    return Kind(kind, try_one, 4)


def _kill_at_operation(world: World, rng: random.Random, folder: Path) -> Result:
    stage = rng.choice(list(world.stages.values()))
    return _kill_before(stage, rng.randint(1, stage.undisturbed.operations), folder)


def _kill_before(stage: Stage, number: int, folder: Path) -> Result:
    kind = "SIGKILL before a write, flush or rename"
    done = stage.run(folder, AtOperation(folder, number))
    if not done.fired:
        return Result(kind, NOT_TRIED, "it had ended before")
    if done.status != -signal.SIGKILL:
        return Result(kind, LOST, f"{stage.title}: status {done.status}: {done.last_line()}")
    return _finish(kind, stage, folder, [done])


def _answer_at_operation(world: World, rng: random.Random, folder: Path) -> Result:
    stage, answer = rng.choice(list(world.stages.values())), rng.choice(ANSWERS)
    return _answer(stage, rng.randint(1, stage.undisturbed.operations), answer, folder)


def _answer(stage: Stage, number: int, answer: int, folder: Path) -> Result:
    kind = "no space, quota, I/O error, read-only, stale handle"
    done = stage.run(folder, AtOperation(folder, number, answer))
    if not done.fired:
        return Result(kind, NOT_TRIED, "it had ended before")
    if done.status != 0 and (fault := done.mistold(os.strerror(answer))):
        return Result(kind, LOST, f"{stage.title}, {errno.errorcode[answer]}: {fault}")
    return _finish(kind, stage, folder, [done])


def every_moment(world: World) -> list[Kind]:
    """A kill before each operation of each stage, and an error as its answer: each once, none by chance."""

    def at(plant: Callable, stage: Stage, number: int, *more) -> Kind:
        return Kind(f"{stage.title} {number}", lambda world, rng, folder: plant(stage, number, *more, folder))

    moments = [(stage, number + 1) for stage in world.stages.values()
               for number in range(stage.undisturbed.operations)]
    return [*(at(_kill_before, stage, number) for stage, number in moments),
            *(at(_answer, stage, number, ANSWERS[number % len(ANSWERS)]) for stage, number in moments)]


def _write_fails_half_way(world: World, rng: random.Random, folder: Path) -> Result:
    kind = "a write that fails half-way"
    stage = rng.choice(list(world.stages.values()))
    done = stage.run(folder, limit_file_size(rng.randint(1, stage.undisturbed.largest - 1)))
    if done.status != 0 and (fault := done.mistold("File too large", "limit of file sizes")):
        return Result(kind, LOST, f"{stage.title}: {fault}")
    return _finish(kind, stage, folder, [done])


def _disk_full(world: World, rng: random.Random, folder: Path) -> Result:
    kind = "disk full (tmpfs)"
    stage = rng.choice([stage for stage in world.stages.values() if stage.name != "report"])
    try:
        with small_disk(folder / "disk", rng.randint(4096, 2 * stage.undisturbed.largest)) as make_large:
            place = folder / "disk" / "work"
            try:
                arguments = stage.prepare(place)
            except OSError:  # not even the input fits
                return Result(kind, NOT_TRIED, "its input did not fit")
            seen = free_space_is_not_seen if rng.random() < 0.7 else None
            done = Process(stage.name, arguments, place, seen).wait()
            if done.status != 0 and (fault := done.mistold("No space left on device", " are free", "on a full disk")):
                return Result(kind, LOST, f"{stage.title}: {fault}")
            make_large()
            return _finish(kind, stage, place, [done])
    except PermissionError:
        return Result(kind, NOT_TRIED, "mounting wants root")


def _two_at_once(world: World, rng: random.Random, folder: Path) -> Result:
    kind = "two jobs on one folder"
    stage = rng.choice(list(world.stages.values()))
    first = stage.start(folder)
    let_run(rng.random() * stage.undisturbed.seconds * 0.8)
    second = stage.start(folder)
    done = sorted([first.wait(), second.wait()], key=lambda outcome: outcome.status or 0, reverse=True)
    refused = done[0].status == 2 and "is writing into it" in done[0].text
    if done[1].status != 0 or not (done[0].status == 0 or refused):
        return Result(kind, LOST, f"{stage.title}: {[(o.status, o.last_line()) for o in done]}")
    return _finish(kind, stage, folder, done)


def _clock_jumps(world: World, rng: random.Random, folder: Path) -> Result:
    """Killed at some operation; then it is another year, for the files that it left or for the next life."""
    kind, jump = "a clock that jumps", rng.choice((-1, 1)) * 400 * 86400
    stage, files_too = rng.choice(list(world.stages.values())), rng.random() < 0.5
    killed = stage.run(folder, AtOperation(folder, rng.randint(1, stage.undisturbed.operations)))
    if files_too:
        for path in folder.rglob("*"):
            os.utime(path, (path.stat().st_atime + jump, path.stat().st_mtime + jump))

    def fault() -> None:
        real, real_strftime = time.time, time.strftime
        time.time = lambda: real() + jump
        time.strftime = lambda text, when=None: real_strftime(text, when or time.localtime(real() + jump))

    done = stage.run(folder, None if files_too else fault)
    if done.status != 0:
        return Result(kind, LOST, f"{stage.title}: {done.status}: {done.last_line()}")
    return verdict(kind, [killed, done], stage.faults_of(folder))


def start_ranks(world: World, folder: Path, out: Path, num_ranks: int = 2, more: Sequence = (), fault=None,
                patience: int = 60) -> list[Process]:
    """A training on ranks that talk over gloo on this machine."""
    port = 20000 + (os.getpid() * 7 + random.SystemRandom().randrange(10000)) % 30000
    processes = []
    for rank in range(num_ranks):
        environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_ranks),
                       "LOCAL_WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                       "HPC_VSR_PATIENCE": str(patience)}
        planted = (lambda rank=rank: fault(rank)) if fault else None
        processes.append(Process("train", ["--data", world.data, "--out", out, *TINY, *more], folder / f"rank{rank}",
                                 planted, environment))
    return processes


def _rank_is_killed(world: World, rng: random.Random, folder: Path) -> Result:
    kind, out = "SIGKILL of one rank of two in training", folder / "run"
    seconds = world.stages["train"].undisturbed.seconds
    ranks = start_ranks(world, folder, out)
    let_run(rng.random() * 1.5 * seconds)
    victim = rng.randrange(2)
    ranks[victim].send(signal.SIGKILL)
    done = [process.wait(240) for process in ranks]
    survivor = done[1 - victim]
    if survivor.status != 0 and (fault := survivor.mistold("another rank", "cannot join the others")):
        return Result(kind, LOST, f"the other rank: {fault}")
    again = [process.wait() for process in start_ranks(world, folder, out)]
    if any(outcome.status != 0 for outcome in again):
        return Result(kind, LOST, f"again: {[(o.status, o.last_line()) for o in again]}")
    return verdict(kind, [survivor, *again], _unlike_two_ranks(world, out))


def _unlike_two_ranks(world: World, out: Path) -> str | None:
    """Two ranks add up the same gradients in the same order each time: their weights are bit-identical too."""
    place = world.folder / "reference" / "ranks"
    if not (place / "done").exists():  # one worker more or less makes it twice, to the same bytes
        made = place / str(os.getpid())
        for process in start_ranks(world, made, made / "run"):
            if process.wait().status != 0:
                return "the undisturbed training on two ranks failed"
        (place / "done").write_text(repr(sorted(weights(made / "run").items())))
    return None if (place / "done").read_text() == repr(sorted(weights(out).items())) else "other weights"


def _rank_hangs(world: World, rng: random.Random, folder: Path) -> Result:
    kind = "one rank of two hangs (SIGSTOP)"
    seconds = world.stages["train"].undisturbed.seconds
    ranks = start_ranks(world, folder, folder / "run", patience=4, more=["--train.steps", 60])
    let_run((1 + rng.random()) * seconds)
    victim = rng.randrange(2)
    ranks[victim].send(signal.SIGSTOP)
    other = ranks[1 - victim].wait(240)
    ranks[victim].send(signal.SIGKILL)
    ranks[victim].wait()
    if other.status not in (0, 1) or (other.status == 1 and "another rank" not in other.text):
        return Result(kind, LOST, f"the other rank: {other.status}: {other.last_line()}")
    return verdict(kind, [other], None)


KINDS = [
    _signal_at_random("SIGKILL at a random moment", signal.SIGKILL, ()),
    _signal_at_random("SIGTERM at a random moment", signal.SIGTERM, (CAN_CONTINUE, 143)),
    _signal_at_random("Ctrl-C at a random moment", signal.SIGINT, (CAN_CONTINUE, 1)),
    Kind("SIGKILL before a write, flush or rename", _kill_at_operation, 6),
    Kind("SIGKILL of one rank of two in training", _rank_is_killed, 1),
    Kind("one rank of two hangs (SIGSTOP)", _rank_hangs, 1),
    Kind("no space, quota, I/O error, read-only, stale handle", _answer_at_operation, 6),
    Kind("a write that fails half-way", _write_fails_half_way, 3),
    Kind("disk full (tmpfs)", _disk_full, 3),
    Kind("two jobs on one folder", _two_at_once, 2),
    Kind("a clock that jumps", _clock_jumps, 2),
]
