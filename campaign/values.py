"""Numbers that are not: in the data, in the loss of one rank, in a training that diverges; and processes that fail."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
from pathlib import Path

import numpy as np
from faults import LOST, Kind, Result, verdict
from kills import start_ranks
from sandbox import Outcome, Process, call, let_run, run
from trainings import TINY
from waiting import wait_at_most
from world import World, weights

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.samples import Split
from hpc_vsr.runs.checkpoints import Checkpoints
from hpc_vsr.runs.state import load_checkpoint
from hpc_vsr.training import optimisation as training


def _finite_weights(out: Path) -> str | None:
    state = load_checkpoint(Checkpoints(out / "checkpoints").newest())
    good = all(tensor.isfinite().all() for part in ("weights", "network") for tensor in state[part].values())
    return None if good else "weights that are not finite were saved"


def _spoil(steps: set[int], value: float):
    """A loss of that value in these steps; all from the last on if it is negative."""
    real = training.Objective.forward
    count = [0]

    def forward(self, *arguments, **more):
        loss = real(self, *arguments, **more)
        count[0] += 1
        return loss * value if count[0] in steps or -1 in steps else loss

    training.Objective.forward = forward


def _loss_on_one_rank(world: World, rng: random.Random, folder: Path) -> Result:
    kind, out = "loss of one rank is NaN or infinite", folder / "run"
    steps = set(rng.sample(range(1, 7), rng.randint(1, 3)))
    victim, value = rng.randrange(2), rng.choice((math.nan, math.inf))

    def fault(rank: int) -> None:
        if rank == victim:
            _spoil(steps, value)

    done = [process.wait() for process in start_ranks(world, folder, out, fault=fault)]
    if any(outcome.status != 0 for outcome in done):
        return Result(kind, LOST, f"{[(o.status, o.last_line()) for o in done]}")
    counted = [json.loads(line).get("skipped_steps") for line in (out / "metrics.jsonl").read_text().splitlines()]
    skipped = max(number for number in counted if number is not None)
    return verdict(kind, done,
                   _finite_weights(out) or (None if skipped == len(steps) else f"counted {skipped} of {steps}"))


def _loss_stays_nan(world: World, rng: random.Random, folder: Path) -> Result:
    kind, out = "loss stays NaN: stops, last checkpoint kept", folder / "run"
    first = run("train", ["--data", world.data, "--out", out, *TINY, "--train.steps", 40], folder,
                lambda: _stop_at(rng.randint(2, 6)))
    before = weights(out)
    ranks = start_ranks(world, folder, out, more=["--train.steps", 40], fault=lambda rank: _spoil({-1}, math.nan))
    done = [process.wait() for process in ranks]
    if any(outcome.status != 1 or "not finite" not in outcome.text for outcome in done):
        return Result(kind, LOST, f"{[(o.status, o.last_line()) for o in done]}")
    kept = weights(out)
    same = all(kept[name] == value for name, value in before.items() if name.startswith("network."))
    return verdict(kind, [first, *done], _finite_weights(out) or (None if same else "the weights moved"))


def _stop_at(step: int) -> None:
    real = training.Optimisation.take_step

    def stop_later(self, patch):
        value = real(self, patch)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return value

    training.Optimisation.take_step = stop_later


def _diverging(world: World, rng: random.Random, folder: Path) -> Result:
    kind, out = "a training that diverges", folder / "run"
    done = run("train",
               ["--data", world.data, "--out", out, *TINY, "--train.steps", 30, "--train.lr",
                10.0 ** rng.uniform(1, 12), "--train.warmup_steps", 0], folder)
    if done.status != 0 and (fault := done.mistold("gradient was not finite in 10 steps in a row")):
        return Result(kind, LOST, fault)
    return verdict(kind, [done], _finite_weights(out) if (out / "checkpoints").exists() else None, done.status == 1)


def _check_finite(data: Path) -> None:
    """LR frames without a gap, HR frames with NaN for one, and infinity nowhere."""
    manifest = read_manifest(data)
    for name in manifest.info.splits:
        split = Split(manifest, name)
        for index in range(split.start, split.stop):
            assert split.lr_frames(index, index + 1).isfinite().all() and not split.hr_frame(index).isinf().any()


def _values_in_a_field(world: World, rng: random.Random, folder: Path) -> Result:
    """Infinite or missing values in frames: a gap, or refused; never a shard that holds infinity."""
    kind = "NaN, infinity or huge values in a field"
    path = folder / "field.nc"
    bad = rng.choice((math.nan, math.inf, -math.inf, 1e38, 3e38, 1e-45))
    amount, frames = rng.choice((1, 40, 1280)), sorted(rng.sample(range(24), rng.randint(1, 24)))

    def write() -> None:
        import xarray as xr

        with xr.open_dataset(world.field) as dataset:
            dataset = dataset.load()
        where = np.random.default_rng(rng.getrandbits(30)).choice(1280, amount, replace=False)
        for frame in frames:
            dataset["speed"].values[frame].reshape(-1)[where] = bad
        dataset.to_netcdf(path)

    call(write, folder)
    made = run("preprocess",
               ["--field", path, "--variable", "speed", "--shards", 3, "--out", folder / "data", "--degradation.sigma",
                1], folder)
    if made.status == 2:
        return verdict(kind, [made], "left a data set" if (folder / "data" / "dataset.json").exists() else None, True)
    if made.status != 0:
        return Result(kind, LOST, f"status {made.status}: {made.last_line()}")
    if call(lambda: _check_finite(folder / "data"), folder).status != 0:
        return Result(kind, LOST, f"{bad} is in a shard")
    trained = run("train", ["--data", folder / "data", "--out", folder / "run", *TINY], folder)
    if trained.status not in (0, 1, 2):
        return Result(kind, LOST, f"training: {trained.status}: {trained.last_line()}")
    return verdict(kind, [made, trained], _finite_weights(folder / "run") if trained.status == 0 else None,
                   trained.status != 0)


def _loader_dies(world: World, rng: random.Random, folder: Path) -> Result:
    kind = "a loader process dies"
    process = Process("train",
                      ["--data", world.data, "--out", folder / "run", *TINY, "--train.steps", 400, "--train.resident",
                       "never", "--train.num_workers", 1], folder)
    wait_at_most(60, lambda: not process.poll() or _children(process.number))
    loader = next(iter(_children(process.number)), None)
    let_run(rng.random())
    with contextlib.suppress(ProcessLookupError, TypeError):
        os.kill(loader, signal.SIGKILL)
    done = process.wait(240)
    if done.status != 1 or "loader process" not in done.text:
        return Result(kind, LOST, f"status {done.status}: {done.last_line()}")
    return verdict(kind, [done], None)


def _children(number: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{number}/task/{number}/children").read_text().split()]
    except OSError:
        return []


def _reader_leaves(world: World, rng: random.Random, folder: Path) -> Result:
    """`... | head -1`: the reader of the output has gone."""
    kind = "the reader of a pipe leaves"
    name = rng.choice(["preprocess", "evaluate", "report", "upscale"])
    stage = world.stages[name]

    def fault() -> None:
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, 1)

    done = stage.run(folder, fault)
    if done.status not in (0, 1):
        return Result(kind, LOST, f"{name}: status {done.status}: {done.last_line()}")
    return verdict(kind, [done, stage.run(folder)], stage.faults_of(folder))


def _too_little_memory(world: World, rng: random.Random, folder: Path) -> Result:
    """Allocation fails at some point: the stage ends, and the same command with more memory finishes."""
    import resource

    kind = "too little memory"
    name = rng.choice(["preprocess", "evaluate", "upscale", "train"])
    stage = world.stages[name]
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    most = used + rng.randint(1 << 20, 200 << 20)
    done: Outcome = stage.run(folder, lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)))
    if done.status in (1, 2) and (fault := done.mistold("memory")):
        return Result(kind, LOST, f"{name}: {fault}")
    again = stage.run(folder)
    if again.status != 0:
        return Result(kind, LOST, f"{name} again: {again.status}: {again.last_line()}")
    return verdict(kind, [done, again], stage.faults_of(folder))


KINDS = [
    Kind("loss of one rank is NaN or infinite", _loss_on_one_rank, 2),
    Kind("loss stays NaN: stops, last checkpoint kept", _loss_stays_nan, 1),
    Kind("a training that diverges", _diverging, 2),
    Kind("NaN, infinity or huge values in a field", _values_in_a_field, 3),
    Kind("a loader process dies", _loader_dies, 1),
    Kind("the reader of a pipe leaves", _reader_leaves, 2),
    Kind("too little memory", _too_little_memory, 2),
]
