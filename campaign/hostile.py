"""Files from strangers: no code of theirs runs, no file outside is touched, memory stays bounded."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from faults import LOST, REFUSED, SURVIVED, Kind, Result
from parsers import write_anything
from sandbox import Outcome, call, run
from trainings import TINY
from world import World

from hpc_vsr.system.files import record_checksum


class Payload:
    """A call, which a pickle may hold."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


KINDS: list[Kind] = []


def case(kinds: list[Kind], name: str) -> Callable:
    """Add to `kinds` the only trial of a function of (world, folder) that returns None, 'refused' or what was lost."""

    def register(function: Callable[[World, Path], str | None]) -> Callable:
        def try_one(world: World, rng: random.Random, folder: Path) -> Result:
            found = function(world, folder)
            if any(path.name == "pwned" for path in folder.rglob("*")):
                found = "a payload was run"
            return Result("hostile files", {None: SURVIVED, REFUSED: REFUSED}.get(found, LOST), f"{name}: {found}")

        kinds.append(Kind(name, try_one))
        return function

    return register


def refused(done: Outcome, *words: str) -> str:
    if done.status != 2 or not done.is_tidy:
        return f"status {done.status}: {done.last_line()}"
    missing = [word for word in words if word not in done.text]
    return f"does not say {missing}: {done.last_line()}" if missing else REFUSED


def _run_copy(world: World, folder: Path) -> tuple[Path, Path]:
    """A run, and the checkpoint that will be looked at first."""
    out = folder / "run"
    shutil.copytree(world.runs / "unmeasured", out)
    (out / "checkpoints" / "best.json").unlink()
    return out, max((out / "checkpoints").glob("step-*.pt"))


@case(KINDS, "a checkpoint whose pickle calls a program")
def _(world: World, folder: Path) -> str:
    out, path = _run_copy(world, folder)
    torch.save({"weights": Payload(folder / "pwned")}, path)
    record_checksum(path)
    return refused(run("evaluate", ["--run", out], folder), str(path))


@case(KINDS, "a plain pickle named as a checkpoint")
def _(world: World, folder: Path) -> str:
    out, path = _run_copy(world, folder)
    path.write_bytes(pickle.dumps(Payload(folder / "pwned")))
    record_checksum(path)
    return refused(run("upscale", ["--run", out, "--input", world.clip, "--output", folder / "o.mp4"], folder),
                   str(path))


@case(KINDS, "a training resumed from a pickle that calls a program")
def _(world: World, folder: Path) -> str:
    out, path = _run_copy(world, folder)
    torch.save({"optimiser": Payload(folder / "pwned")}, path)
    record_checksum(path)
    return refused(run("train", ["--data", world.data, "--out", out, *TINY], folder), str(path))


@case(KINDS, "published weights that call a program")
def _(world: World, folder: Path) -> str:
    from hpc_vsr import import_weights

    torch.save({"conv.weight": Payload(folder / "pwned")}, folder / "w.pth")
    return refused(call(lambda: import_weights.main([str(folder / "w.pth"), "--out", str(folder / "r")]), folder),
                   "w.pth")


@case(KINDS, "a checkpoint that is packed and would swell")
def _(world: World, folder: Path) -> str:
    out, path = _run_copy(world, folder)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        largest = max(source.infolist(), key=lambda entry: entry.file_size).filename
        for entry in source.infolist():
            with bomb.open(entry.filename, "w", force_zip64=True) as stream:
                if entry.filename != largest:
                    stream.write(source.read(entry))
                else:
                    for _ in range(20):
                        stream.write(bytes(1 << 20))
    shutil.move(folder / "bomb.pt", path)
    record_checksum(path)
    return refused(run("evaluate", ["--run", out], folder), str(path))


@case(KINDS, "a checkpoint of another network with a huge tensor of stride 0")
def _(world: World, folder: Path) -> str:
    out, path = _run_copy(world, folder)
    state = torch.load(path, weights_only=True)
    name = next(iter(state["weights"]))
    state["weights"][name] = torch.zeros(1).expand(200_000, 200_000)
    torch.save(state, path)
    record_checksum(path)
    return refused(run("evaluate", ["--run", out], folder), str(path), name)


@case(KINDS, "a best.json that names a file outside")
def _(world: World, folder: Path) -> str | None:
    out, path = _run_copy(world, folder)
    torch.save({"weights": Payload(folder / "pwned")}, folder / "step-00000099.pt")
    record_checksum(folder / "step-00000099.pt")
    write_anything(out / "checkpoints" / "best.json", {"file": "../../step-00000099.pt", "step": 99, "psnr": 99.0})
    done = run("evaluate", ["--run", out], folder)
    return None if done.status == 0 else f"status {done.status}: {done.last_line()}"


def _manifest(world: World, folder: Path, change: Callable[[dict], None]) -> Outcome:
    data = folder / "data"
    shutil.copytree(world.data, data)
    content = json.loads((data / "dataset.json").read_text())
    del content["content_sha256"]
    change(content)
    write_anything(data / "dataset.json", content)
    return run("train", ["--data", data, "--out", folder / "run", *TINY], folder, limit=240)


for _name in ("../../secret.h5", "/etc/passwd", "train-00000-of-00003.h5/../../x.h5", "train-00000-of-00003.h5\0"):

    @case(KINDS, f"a manifest with a shard {_name!r}")
    def _(world: World, folder: Path, name: str = _name) -> str:
        return refused(_manifest(world, folder, lambda content: content["shards"][0].update(name=name)), "dataset.json")


for _size in ([10**9, 10**9], [2**63, 2], [48.5, 64], ["48", "64"], [-48, -64]):

    @case(KINDS, f"a manifest with frames of {_size}")
    def _(world: World, folder: Path, size: list = _size) -> str:
        def change(content: dict) -> None:
            content["hr_size"] = size
            content["lr_size"] = [side // 2 if isinstance(side, int) else side for side in size]

        return refused(_manifest(world, folder, change), "dataset.json")


@case(KINDS, "a manifest nested 100,000 deep")
def _(world: World, folder: Path) -> str:
    data = folder / "data"
    shutil.copytree(world.data, data)
    (data / "dataset.json").write_text("[" * 100_000 + "]" * 100_000)
    return refused(run("train", ["--data", data, "--out", folder / "run", *TINY], folder), "dataset.json")


@case(KINDS, "a manifest that declares 10^12 frames")
def _(world: World, folder: Path) -> str:
    def change(content: dict) -> None:
        content["splits"]["train"] = [0, 10**12]
        content["shards"][0].update(frames=10**12, samples=10**12 - 4)

    return refused(_manifest(world, folder, change), "dataset.json")
