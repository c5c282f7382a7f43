"""Links, in folders from strangers, to a file elsewhere: nothing is written through them."""

from __future__ import annotations

import shutil
from pathlib import Path

from faults import REFUSED, Kind
from hostile import case
from sandbox import run
from trainings import TINY
from world import World

KINDS: list[Kind] = []
SECRET = b"not to be changed\n"
OF_A_RUN = (".lock", ".lock.next", ".evaluate.lock", ".writable", "log.txt", "metrics.jsonl", ".metrics.jsonl.partial",
            "metrics-test.json", ".metrics-test.json.partial", ".pictures-test.npz.partial", ".config.json.partial",
            "checkpoints/.step-00000006.pt.partial", "checkpoints/.step-00000006.pt.sha256.partial",
            "checkpoints/.best.json.partial")
OF_A_DATA_SET = (".lock", ".writable", ".dataset.json.partial", ".train-00000-of-00003.h5.partial")


def _link(path: Path, secret: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(secret)


for _name in OF_A_RUN:

    @case(KINDS, f"{_name} of a run is a link")
    def _(world: World, folder: Path, name: str = _name) -> str | None:
        out, secret = folder / "run", folder / "secret"
        secret.write_bytes(SECRET)
        shutil.copytree(world.runs / "unmeasured", out)
        for path in (out / "checkpoints").glob("step-00000006*"):
            path.unlink()  # so that training has something to do
        _link(out / name, secret)
        trained = run("train", ["--data", world.data, "--out", out, *TINY], folder)
        return _verdict([trained, run("evaluate", ["--run", out], folder)], secret)


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
