"""Every parser of ours, fed with what its format allows and a mutation of it: an answer or one line of refusal."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path

import torch
from badfiles import mutate
from faults import LOST, Kind, Result, verdict
from repository import ROOT
from sandbox import call, run
from trainings import TINY
from world import World

from hpc_vsr.cluster.site import read_site
from hpc_vsr.data.recipe import Recipe
from hpc_vsr.experiment.jobfile import add_job_file, read_job
from hpc_vsr.system.files import record_checksum, write_sealed
from hpc_vsr.system.parser import Parser

ODD = ("0", "-1", "1e400", "nan", "inf", "-inf", "true", '""', '"x"', "[]", "[1, 2]", "{}", "99999999999999999999",
       '"../../etc/passwd"', '"\\u0000"', "1979-05-27", "[[[[]]]]", "0x7fffffffffffffff", '"' + "a" * 5000 + '"')
MORE = """[resources]
nodes = 2
ranks_per_node = 1
hours = 1.5
memory_gb = 3
[sweep]
"train.seed" = [0, 1, 2]
"train.lr" = [1e-3, 1e-4]
"""
ODD_JSON = (None, 0, -1, 1e308, 2**70, 10**400, True, "", "x" * 3000, [], [None], {}, {"a": 1}, "../../etc/passwd",
            "/etc/passwd", float("nan"), [10**9, 10**9], "train-00000-of-00001.h5")

OPTIONS = {
    "preprocess": "--shards --degradation.sigma --split.train --channels --out --degradation.scale",
    "train": "--train.lr --train.seed --train.patch_size --train.batch_size --model.n_2d --model.depth "
    "--train.ema_decay --train.micro_batches --model.recursive_streams --train.num_workers",
    "evaluate": "--pictures --split --back_projection --twice",
    "report": "--split --level",
    "upscale": "--start --stop --tile --segment --quality --codec --part --output",
    "launch": "--resources.nodes --resources.hours --train.lr --site",
}


def mutate_toml(text: str, rng: random.Random) -> bytes:
    """Other values, lines twice or missing, other sections; or any bytes."""
    if rng.random() < 0.3:
        return mutate(text.encode(), rng)
    lines = text.splitlines()
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(lines))
        what = rng.randrange(5)
        if what <= 1 and "=" in lines[place]:
            lines[place] = f"{lines[place].partition('=')[0]}= {rng.choice(ODD)}"
        elif what == 2:
            del lines[place]
        elif what == 3:
            lines.insert(rng.randrange(len(lines) + 1), lines[place])
        else:
            lines.insert(
                place, rng.choice(("[train]", "[sweep]", "[a.b.c]", "x = 1", "[[train]]", '"train.lr" = [1]', "lr ="))
            )
        lines = lines or [""]
    return "\n".join(lines).encode("utf-8", "replace")


def _toml(world: World, rng: random.Random, folder: Path) -> Result:
    kind = "recipes, job files and sites"
    source = rng.choice(sorted([*ROOT.glob("jobs/*.toml"), *ROOT.glob("preprocess/*.toml"),
                                *ROOT.glob("slurm/sites/*.toml")]))
    path = folder / source.name
    path.write_bytes(mutate_toml(source.read_text(), rng))

    def parse() -> None:
        if source.parent.name == "sites":
            read_site(path, "abc")
            return
        parser = Parser("test", "")
        if source.parent.name == "preprocess":
            parser.add_settings(Recipe, "--recipe")
            parser.parse(["--recipe", str(path)])
        else:
            add_job_file(parser)
            read_job(parser, ["--config", str(path)])

    done = call(parse, folder, 240)
    return _answered(kind, done, source.name)


def _dry_runs(world: World, rng: random.Random, folder: Path) -> Result:
    kind = "job files, as a dry run of launch"
    path = folder / "job.toml"
    path.write_bytes(mutate_toml((world.folder / "job.toml").read_text() + MORE, rng))
    done = run("launch", ["--config", path, "--cluster", "slurm", "--dry-run"], folder, limit=240)
    return _answered(kind, done, path.name)


def mutate_json(value, rng: random.Random):
    """One odd value somewhere, a key less, or a key more."""
    places = list(_places(value))
    container, key = rng.choice(places)
    what = rng.randrange(4)
    if what == 0 and isinstance(container, dict):
        del container[key]
    elif what == 1 and isinstance(container, list):
        container.append(rng.choice(ODD_JSON))
    else:
        container[key] = rng.choice(ODD_JSON)


def _places(value):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from _places(item)


def _manifest(world: World, rng: random.Random, folder: Path) -> Result:
    """A manifest with a right checksum and a wrong content, as a stranger would write it."""
    kind = "manifests with a right checksum"
    data = folder / "data"
    shutil.copytree(world.data, data)
    content = json.loads((data / "dataset.json").read_text())
    del content["content_sha256"]
    mutate_json(content, rng)
    write_anything(data / "dataset.json", content)
    done = run("train", ["--data", data, "--out", folder / "run", *TINY, "--train.steps", 2], folder, limit=240)
    return _answered(kind, done, "")


def write_anything(path: Path, content: dict) -> None:
    try:
        write_sealed(path, content)
    except ValueError:  # NaN, which JSON does not have
        path.write_text(json.dumps(content))


def _shard(world: World, rng: random.Random, folder: Path) -> Result:
    """A mutated shard whose checksum the manifest confirms."""
    kind = "shards with a right checksum"
    data = folder / "data"
    shutil.copytree(world.data, data)
    path = rng.choice(sorted(data.glob("*.h5")))
    path.write_bytes(mutate(path.read_bytes(), rng))
    reseal_shards(data)
    done = run("train", ["--data", data, "--out", folder / "run", *TINY, "--train.steps", 2], folder, limit=240)
    again = run("preprocess", ["--video", world.clip, "--shards", 5, "--out", data], folder, limit=240)
    result = _answered(kind, done, path.name)
    return result if result.outcome == LOST else _answered(kind, again, f"preprocess, {path.name}", result)


def reseal_shards(data: Path) -> None:
    """Have dataset.json confirm the shards as they are now."""
    from hpc_vsr.system.files import sha256

    content = json.loads((data / "dataset.json").read_text())
    del content["content_sha256"]
    for entry in content["shards"]:
        path = data / entry["name"]
        entry["sha256"], entry["bytes"] = sha256(path), path.stat().st_size
    write_anything(data / "dataset.json", content)


def _checkpoint(world: World, rng: random.Random, folder: Path) -> Result:
    """A checkpoint with a right checksum: mutated bytes, or a mutated state."""
    kind = "checkpoints with a right checksum"
    out = folder / "run"
    shutil.copytree(world.runs / "unmeasured", out)
    path = max((out / "checkpoints").glob("step-*.pt"))
    if rng.random() < 0.5:
        path.write_bytes(mutate(path.read_bytes(), rng))
    else:

        def change() -> None:
            state = torch.load(path, weights_only=True)
            part = rng.choice([state, state, state["weights"], state["model_settings"], state["data_terms"],
                               state["optimiser"]])
            key = rng.choice(list(part))
            part[key] = rng.choice((*ODD_JSON[:12], torch.zeros(3), torch.zeros(0), torch.full((2, 2), torch.nan)))
            torch.save(state, path)

        call(change, folder)
    record_checksum(path)
    measured = run("evaluate", ["--run", out], folder, limit=240)
    resumed = run("train", ["--data", world.data, "--out", out, *TINY, "--train.steps", 6], folder, limit=240)
    result = _answered(kind, measured, "evaluate")
    return result if result.outcome == LOST else _answered(kind, resumed, "train", result)


def _run_files(world: World, rng: random.Random, folder: Path) -> Result:
    """A run's own file with a right checksum and a wrong content, in whatever reads it."""
    kind = "a run's JSON with a right checksum"
    out = folder / "tiny"
    shutil.copytree(world.runs / "tiny", out)
    path = out / rng.choice(("config.json", "metrics-test.json", "checkpoints/best.json"))
    content = json.loads(path.read_text())
    del content["content_sha256"]
    for _ in range(rng.choice((1, 1, 2))):
        mutate_json(content, rng)
    write_anything(path, content)
    commands = [("report", [out, "--out", folder / "report"]), ("evaluate", ["--run", out]),
                ("upscale", ["--run", out, "--input", world.clip, "--output", folder / "out.mp4", "--stop", 1]),
                ("train", ["--data", world.data, "--out", out, *TINY])]
    result = None
    for stage, arguments in [commands[0], rng.choice(commands[1:])]:
        done = run(stage, arguments, folder, limit=240)
        result = _answered(kind, done, f"{path.name}, {stage}", result)
        if result.outcome == LOST:
            break
    return result


def _arguments(world: World, rng: random.Random, folder: Path) -> Result:
    """Odd values on the command line of any stage."""
    kind = "command lines"
    stage = rng.choice(list(world.stages.values()))
    arguments = [str(word) for word in stage.prepare(folder)]
    options = OPTIONS[stage.name].split()
    value = re.sub(r'^"|"$', "", rng.choice(ODD)).replace("\\u0000", "\x01")
    done = run(stage.name, [*arguments, rng.choice(options), value], folder, limit=240)
    if done.status == 1 and "failed:" in done.text:  # such as a rate that diverges
        return verdict(kind, [done], None, True)
    return _answered(kind, done, stage.name)


def _answered(kind: str, done, where: str, before: Result | None = None) -> Result:
    if done.status not in (0, 2):
        return Result(kind, LOST, f"{where}: status {done.status}: {done.last_line()}")
    if done.status == 2 and "error: " not in done.text:
        return Result(kind, LOST, f"{where}: refused without a reason")
    return verdict(kind, [done], None, done.status == 2 or (before is not None and before.outcome == "refused"))


KINDS = [
    Kind("recipes, job files and sites", _toml, 8),
    Kind("job files, as a dry run of launch", _dry_runs, 2),
    Kind("manifests with a right checksum", _manifest, 4),
    Kind("shards with a right checksum", _shard, 4),
    Kind("checkpoints with a right checksum", _checkpoint, 4),
    Kind("a run's JSON with a right checksum", _run_files, 4),
    Kind("command lines", _arguments, 4),
]
