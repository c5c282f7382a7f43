"""Checkpoints: which is the best, which are kept, and that one is valid at every moment."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

from hpc_vsr.runs.checkpoints import Checkpoints
from hpc_vsr.runs.state import load_checkpoint, save_checkpoint
from hpc_vsr.runs.trained import DataTerms
from hpc_vsr.system import files
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import is_valid


@pytest.mark.parametrize("best_stays", [True, False])
def test_without_its_name_the_best_checkpoint_is_known_to_the_newest(trained, tmp_path, capsys, best_stays):
    folder = shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    best, newest = Checkpoints(folder).best(), Checkpoints(folder).newest()
    state = {**load_checkpoint(newest), "step": 9}
    save_checkpoint(Checkpoints(folder), state, 9, keep=9, best_score=None)
    (folder / "best.json").write_text("{")
    if not best_stays:
        best.write_bytes(best.read_bytes()[:-1])
    assert Checkpoints(folder).best() == (best if best_stays else folder / "step-00000009.pt")
    assert (f"{best}, the best checkpoint, is damaged or lost" in capsys.readouterr().err) != best_stays


@pytest.mark.parametrize("keep", [1, 2])
def test_what_a_damaged_newer_checkpoint_left_is_pruned_before_a_good_one(trained, tmp_path, keep):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    state = load_checkpoint(Checkpoints(trained / "checkpoints").newest())
    for step in (1000, 2000):
        save_checkpoint(Checkpoints(folder), state, step, keep=9, best_score=1.0 if step == 1000 else None)
    damaged = folder / "step-00002000.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (folder / ".step-00000900.pt.partial").touch()  # a kill left it
    for step in (1100, 1200):
        assert is_valid(save_checkpoint(Checkpoints(folder), state, step, keep=keep, best_score=None))
    left = {path.name for path in folder.glob("*.pt")}
    assert left == {"step-00001000.pt", "step-00001200.pt"} | ({"step-00001100.pt"} if keep == 2 else set())
    assert not list(folder.glob(".*"))


def test_a_checkpoint_is_valid_at_every_moment_while_it_is_written_again(tmp_path, monkeypatch):
    path, seen = tmp_path / "step-00000001.pt", []
    files.write_checked(path, b"before")
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (replace(*names), seen.append(files.is_valid(path))))
    files.write_checked(path, b"after")
    assert len(seen) == 3 and all(seen) and path.read_bytes() == b"after"
    assert files.checksum_path(path).read_text().count("\n") == 1


def test_checkpoints_load_without_running_code(trained):
    for path in (trained / "checkpoints").glob("*.pt"):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize(("key", "value"), [("step", torch.ones(1)), ("validation_due", torch.ones(2)),
                                            ("skipped", "many"), ("config", None), ("weights", [])])
def test_an_entry_of_another_type_is_refused(trained, tmp_path, key, value):
    state = load_checkpoint(Checkpoints(trained / "checkpoints").newest())
    torch.save({**state, key: value}, tmp_path / "step-00000001.pt")
    with pytest.raises(InputError, match=f"missing or invalid: {key}"):
        load_checkpoint(tmp_path / "step-00000001.pt")
    del state["skipped"]  # as an earlier version wrote it
    torch.save(state, tmp_path / "step-00000002.pt")
    assert load_checkpoint(tmp_path / "step-00000002.pt")["step"] == state["step"]


def test_a_field_of_0_to_255_is_no_video():
    """Such as the counts of a radar; a checkpoint of an earlier version does not say, and its range decides."""
    terms = (1, 2, 3.0, 1e-3, 0.0, 255.0, "")
    assert not DataTerms(*terms, is_video=False).for_video and DataTerms(*terms, is_video=True).for_video
    assert DataTerms(*terms).for_video
