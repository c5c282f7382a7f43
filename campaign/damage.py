"""Files that a disk, a copy or a person has damaged: named, mended by the same command, and never trained on."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

from faults import LOST, Kind, Result, verdict
from sandbox import run
from trainings import TINY
from world import World, weights

from hpc_vsr.system.files import sha256

WAYS = ("a flipped bit", "a truncated file", "a deleted file", "a block of zeros")


def damage(path: Path, way: str, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if way == "a deleted file":
        path.unlink()
        return
    if way == "a truncated file":
        content = content[: rng.randrange(len(content))]
    elif way == "a flipped bit":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    else:
        start = rng.randrange(len(content))
        stop = min(len(content), start + rng.choice((16, 512, 4096)))
        content[start:stop] = bytes(stop - start)
    path.write_bytes(content)


def _pick(folder: Path, patterns: tuple[str, ...], rng: random.Random) -> Path:
    return rng.choice(sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file()))


def _data_set(world: World, rng: random.Random, folder: Path) -> Result:
    """Training either refuses it or learns what it would have learned; preprocessing makes it whole, to the byte."""
    kind = "damage to a shard or dataset.json"
    data = folder / "data"
    shutil.copytree(world.data, data)
    damage(_pick(data, ("*.h5", "*.h5", "dataset.json"), rng), rng.choice(WAYS), rng)
    stage = world.stages["train"]
    trained = run("train", ["--data", data, "--out", folder / "run", *TINY], folder)
    if trained.status == 0:
        if weights(folder / "run") != stage.undisturbed.product:
            return Result(kind, LOST, "trained on it")
    elif trained.status != 2 or str(data) not in trained.text:
        return Result(kind, LOST, f"status {trained.status}: {trained.last_line()}")
    again = world.stages["preprocess"].run(folder)
    shutil.rmtree(folder / "run", ignore_errors=True)
    if again.status != 0:
        return Result(kind, LOST, f"preprocessing again: {again.status}: {again.last_line()}")
    return verdict(kind, [trained, again], world.stages["preprocess"].faults_of(folder), trained.status == 2)


def _run(world: World, rng: random.Random, folder: Path) -> Result:
    """Evaluation either refuses a run or measures what it would have measured; training makes it whole, to the bit."""
    kind = "damage to a checkpoint or a run's file"
    out = folder / "tiny"
    shutil.copytree(world.runs / "tiny", out)
    names = ("checkpoints/*.pt", "checkpoints/*", "config.json", "metrics.jsonl", "metrics-test.json",
             "pictures-test.npz")
    victim = _pick(out, names, rng)
    damage(victim, rng.choice(WAYS), rng)
    where = f"{victim.name}: "
    reported = run("report", [out, "--out", folder / "report"], folder)
    if reported.status not in (0, 2):
        return Result(kind, LOST, f"{where}report: status {reported.status}: {reported.last_line()}")
    again = run("train", ["--data", world.data, "--out", out, *TINY], folder)
    if again.status != 0:
        return Result(kind, LOST, f"{where}training again: {again.status}: {again.last_line()}")
    if weights(out) != world.stages["train"].undisturbed.product:
        return Result(kind, LOST, f"{where}training again gives other weights")
    measured = run("evaluate", ["--run", out, "--data", world.data], folder)
    if measured.status != 0:
        return Result(kind, LOST, f"{where}evaluation again: {measured.status}: {measured.last_line()}")
    return verdict(kind, [reported, again, measured], None, reported.status == 2)


def _never_measured_wrong(world: World, rng: random.Random, folder: Path) -> Result:
    """An evaluation, an upscaling or an export of a damaged run is right, or it is refused."""
    kind = "use of a damaged run"
    out = folder / "tiny"
    shutil.copytree(world.runs / "unmeasured", out)
    victim = _pick(out, ("checkpoints/*", "config.json"), rng)
    damage(victim, rng.choice(WAYS), rng)
    stage = world.stages["evaluate"]
    done = run("evaluate", ["--run", out], folder)
    if done.status not in (0, 2):
        return Result(kind, LOST, f"{victim.name}: status {done.status}: {done.last_line()}")
    wrong = None
    # or it measures another checkpoint that is whole, and says so
    if done.status == 0 and stage.product(folder) != stage.undisturbed.product:
        measured = json.loads((out / "metrics-test.json").read_text())["checkpoint_sha256"]
        whole = {sha256(path) for path in (world.runs / "unmeasured" / "checkpoints").glob("*.pt")}
        if measured not in whole:
            wrong = "measured damaged weights"
        elif "is damaged or lost" not in done.text:
            wrong = "measured another checkpoint without a word"
    return verdict(kind, [done], wrong, done.status == 2)


def _segments(world: World, rng: random.Random, folder: Path) -> Result:
    """A damaged part of an unfinished upscaling is made again."""
    kind = "damage to an unfinished upscaling"
    stage = world.stages["upscale"]
    first = run("upscale", [*stage.prepare(folder), "--part", "1/2"], folder)
    damage(_pick(folder / "out.mp4.parts", ("segment-*", "plan.json"), rng), rng.choice(WAYS), rng)
    again = stage.run(folder)
    refused = again.status == 2 and "delete" in again.text
    if refused:
        shutil.rmtree(folder / "out.mp4.parts")
        again = stage.run(folder)
    if again.status != 0:
        return Result(kind, LOST, f"again: {again.status}: {again.last_line()}")
    return verdict(kind, [first, again], stage.faults_of(folder), refused)


def _read_only_data(world: World, rng: random.Random, folder: Path) -> Result:
    """A data set on a file system that cannot be written is trained on by two jobs at once."""
    kind = "read-only data folder, two jobs"
    data = folder / "ro"
    data.mkdir()
    if os.geteuid() != 0 or os.system(f"mount --bind -o ro '{world.data}' '{data}'"):
        return Result(kind, "not tried", "mounting wants root")
    try:
        from sandbox import Process

        jobs = [Process("train", ["--data", data, "--out", folder / f"run{number}", *TINY], folder)
                for number in (1, 2)]
        done = [job.wait() for job in jobs]
    finally:
        os.system(f"umount '{data}'")
    right = all(outcome.status == 0 and weights(folder / f"run{number}") == world.stages["train"].undisturbed.product
                for number, outcome in enumerate(done, 1))
    return verdict(kind, done, None if right else f"{[(o.status, o.last_line()) for o in done]}")


KINDS = [
    Kind("damage to a shard or dataset.json", _data_set, 5),
    Kind("damage to a checkpoint or a run's file", _run, 4),
    Kind("use of a damaged run", _never_measured_wrong, 4),
    Kind("damage to an unfinished upscaling", _segments, 2),
    Kind("read-only data folder, two jobs", _read_only_data, 1),
]
