"""Links, in folders from strangers, to a file elsewhere: nothing is written through them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from faults import REFUSED, Kind
from hostile import case
from sandbox import run
from trainings import TINY
from world import World

KINDS: list[Kind] = []
SECRET = b"not to be changed\n"
# of a run, by the command that writes them
OF_TRAINING = (".lock", ".lock.next", ".writable", "log.txt", "metrics.jsonl", ".metrics.jsonl.partial",
               ".config.json.partial", "checkpoints/.step-00000006.pt.partial",
               "checkpoints/.step-00000006.pt.sha256.partial", "checkpoints/.best.json.partial")
OF_EVALUATION = (".evaluate.lock", ".writable", "metrics-test.json", ".metrics-test.json.partial",
                 ".pictures-test.npz.partial")
OF_A_DATA_SET = (".lock", ".writable", ".dataset.json.partial", ".train-00000-of-00003.h5.partial")


def _link(path: Path, secret: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(secret)


def _run_with_links(world: World, folder: Path, names: Sequence[str]) -> tuple[Path, Path]:
    """Return a copy of a run in which these files are links, and the file to which they lead."""
    out, secret = folder / "run", folder / "secret"
    secret.write_bytes(SECRET)
    shutil.copytree(world.runs / "unmeasured", out)
    for path in (out / "checkpoints").glob("step-00000006*"):
        path.unlink()  # so that training has something to do
    for name in names:
        _link(out / name, secret)
    return out, secret


for _name in OF_TRAINING:

    @case(KINDS, f"{_name} of a run that is trained is a link")
    def _(world: World, folder: Path, name: str = _name) -> str | None:
        out, secret = _run_with_links(world, folder, {name, *OF_EVALUATION[:1], *OF_EVALUATION[2:]})
        return _verdict([run("train", ["--data", world.data, "--out", out, *TINY], folder)], secret)


for _names in (*((name,) for name in OF_EVALUATION), OF_TRAINING):

    @case(KINDS, f"{', '.join(_names)[:60]} of a run that is evaluated is a link")
    def _(world: World, folder: Path, names: Sequence[str] = _names) -> str | None:
        out, secret = _run_with_links(world, folder, names)
        return _verdict([run("evaluate", ["--run", out], folder)], secret)


for _name in OF_A_DATA_SET:

    @case(KINDS, f"{_name} of a data set is a link")
    def _(world: World, folder: Path, name: str = _name) -> str | None:
        data, secret = folder / "data", folder / "secret"
        secret.write_bytes(SECRET)
        shutil.copytree(world.data, data)
        (data / "dataset.json").unlink()
        (data / "train-00000-of-00003.h5").unlink()
        _link(data / name, secret)
        return _verdict([run("preprocess", ["--video", world.clip, "--shards", 5, "--out", data], folder)], secret)


def _verdict(done: list, secret: Path) -> str | None:
    if not secret.exists() or secret.read_bytes() != SECRET:
        return "the file elsewhere was changed"
    wrong = [outcome for outcome in done if outcome.status not in (0, 2) or not outcome.is_tidy]
    if wrong:
        return f"status {wrong[0].status}: {wrong[0].last_line()}"
    return REFUSED if any(outcome.status == 2 for outcome in done) else None
