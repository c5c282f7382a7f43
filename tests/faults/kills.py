"""Processes that end at any moment, and file systems that fail at any operation; the same command finishes."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from campaign import LOST, SURVIVED, Kind, Result, verdict
from sandbox import ANSWERS, AtOperation, Process, free_space_is_not_seen, limit_file_size, small_disk
from world import TINY, Stage, World, weights

from hpc_vsr.errors import CAN_CONTINUE


def _finish(kind: str, stage: Stage, folder: Path, before: list) -> Result:
    """The same command again, undisturbed, makes what it makes without a fault."""
    again = stage.run(folder)
    if again.status != 0:
        return Result(kind, LOST, f"again it ends with {again.status}: {again.last_line()}")
    return verdict(kind, [*before, again], stage.faults_of(folder))


def _signal_at_random(kind: str, number: int, expected: tuple) -> Kind:
    def try_one(world: World, rng: random.Random, folder: Path) -> Result:
        stage = rng.choice(list(world.stages.values()))
        ended = []
        for _ in range(rng.choice((1, 1, 2))):
            process = Process(stage.name, stage.prepare(folder), folder)
            time.sleep(rng.random() * stage.seconds)
            process.send(number)
            done = process.wait()
            ended.append(done)
            if done.status not in (0, -number, *expected):
                return Result(kind, LOST, f"{stage.name}: status {done.status}: {done.last_line()}")
        return _finish(kind, stage, folder, ended)

    return Kind(kind, try_one, 4)


def _kill_at_operation(world: World, rng: random.Random, folder: Path) -> Result:
    stage = rng.choice(list(world.stages.values()))
    return _kill_before(stage, rng.randint(1, stage.operations), folder)


def _kill_before(stage: Stage, number: int, folder: Path) -> Result:
    done = stage.run(folder, AtOperation(folder, number))
    return _finish("SIGKILL before a write, flush or rename", stage, folder, [done])


def _answer_at_operation(world: World, rng: random.Random, folder: Path) -> Result:
    stage, answer = rng.choice(list(world.stages.values())), rng.choice(ANSWERS)
    return _answer(stage, rng.randint(1, stage.operations), answer, folder)


def _answer(stage: Stage, number: int, answer: int, folder: Path) -> Result:
    kind = "no space, quota, I/O error, read-only, stale handle"
    done = stage.run(folder, AtOperation(folder, number, answer))
    if done.status != 0 and os.strerror(answer) not in done.text:
        return Result(
            kind, LOST, f"{stage.name}, {errno.errorcode[answer]}: status {done.status}, not named: {done.last_line()}"
        )
    return _finish(kind, stage, folder, [done])


def every_moment(world: World) -> list[Kind]:
    """A kill before each operation of each stage, and an error as its answer: each once, none by chance."""

    def at(plant: Callable, stage: Stage, number: int, *more) -> Kind:
        return Kind(f"{stage.name} {number}", lambda world, rng, folder: plant(stage, number, *more, folder))

    moments = [(stage, number + 1) for stage in world.stages.values() for number in range(stage.operations)]
    return [
        *(at(_kill_before, stage, number) for stage, number in moments),
        *(at(_answer, stage, number, ANSWERS[number % len(ANSWERS)]) for stage, number in moments),
    ]


def _write_fails_half_way(world: World, rng: random.Random, folder: Path) -> Result:
    kind = "a write that fails half-way"
    stage = rng.choice(list(world.stages.values()))
    done = stage.run(folder, limit_file_size(rng.randint(1, stage.largest)))
    return _finish(kind, stage, folder, [done])


def _disk_full(world: World, rng: random.Random, folder: Path) -> Result:
    kind = "disk full (tmpfs)"
    stage = rng.choice([stage for stage in world.stages.values() if stage.name != "report"])
    try:
        with small_disk(folder / "disk", rng.randint(4096, 2 * stage.largest)) as make_large:
            place = folder / "disk" / "work"
            try:
                arguments = stage.prepare(place)
            except OSError:  # not even the input fits
                return Result(kind, SURVIVED)
            seen = free_space_is_not_seen if rng.random() < 0.7 else None
            process = Process(stage.name, arguments, place, seen)
            done = process.wait()
            make_large()
            return _finish(kind, stage, place, [done])
    except PermissionError:
        return Result(kind, "not tried", "mounting wants root")


def _two_at_once(world: World, rng: random.Random, folder: Path) -> Result:
    kind = "two jobs on one folder"
    stage = rng.choice(list(world.stages.values()))
    arguments = stage.prepare(folder)
    first = Process(stage.name, arguments, folder)
    time.sleep(rng.random() * stage.seconds * 0.8)
    second = Process(stage.name, arguments, folder)
    done = [first.wait(), second.wait()]
    if sorted({outcome.status for outcome in done} | {0}) not in ([0], [0, 2]) or all(o.status for o in done):
        return Result(kind, LOST, f"{stage.name}: {[(o.status, o.last_line()) for o in done]}")
    return _finish(kind, stage, folder, done)


def _clock_jumps(world: World, rng: random.Random, folder: Path) -> Result:
    stage, after, jump = rng.choice(list(world.stages.values())), rng.randint(1, 40), rng.choice((-1, 1)) * 86400 * 400
    real, calls = time.time, [0]

    def fault() -> None:
        def shifted() -> float:
            calls[0] += 1
            return real() + (jump if calls[0] > after else 0)

        time.time = shifted

    done = stage.run(folder, fault)
    if done.status != 0:
        return Result("a clock that jumps", LOST, f"{stage.name}: {done.status}: {done.last_line()}")
    return verdict("a clock that jumps", [done], stage.faults_of(folder))


def start_ranks(
    world: World,
    folder: Path,
    out: Path,
    num_ranks: int = 2,
    more: Sequence = (),
    fault=None,
    patience: int = 60,
) -> list[Process]:
    """A training on ranks that talk over gloo on this machine."""
    port = 20000 + (os.getpid() * 7 + random.SystemRandom().randrange(10000)) % 30000
    processes = []
    for rank in range(num_ranks):
        environment = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(num_ranks),
            "LOCAL_WORLD_SIZE": str(num_ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "HPC_VSR_PATIENCE": str(patience),
        }
        planted = (lambda rank=rank: fault(rank)) if fault else None
        processes.append(
            Process(
                "train",
                ["--data", world.data, "--out", out, *TINY, *more],
                folder / f"rank{rank}",
                planted,
                environment,
            )
        )
    return processes


def _rank_is_killed(world: World, rng: random.Random, folder: Path) -> Result:
    kind, out = "SIGKILL of one rank of two in training", folder / "run"
    ranks = start_ranks(world, folder, out)
    time.sleep(rng.random() * 1.5 * world.stages["train"].seconds)
    victim = rng.randrange(2)
    ranks[victim].send(signal.SIGKILL)
    done = [process.wait(240) for process in ranks]
    survivor = done[1 - victim]
    if survivor.status not in (0, 1):
        return Result(kind, LOST, f"the other rank ended with {survivor.status}: {survivor.last_line()}")
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
    ranks = start_ranks(world, folder, folder / "run", patience=4, more=["--train.steps", 60])
    time.sleep((1 + rng.random()) * world.stages["train"].seconds)
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
    Kind("a clock that jumps", _clock_jumps, 1),
]
