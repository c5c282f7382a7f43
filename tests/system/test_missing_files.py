"""A relative path that is not found is told with the folder in which it was looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_vsr.data.plan import plan_dataset
from hpc_vsr.data.recipe import Recipe
from hpc_vsr.experiment.jobfile import JobFile
from hpc_vsr.system.config import read_toml
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import read_json

RECIPE = 'video = "clips/nowhere.mp4"\nout = "data/clip"\n'


def job_of(recipe: Path) -> JobFile:
    recipe.parent.mkdir()
    recipe.write_text(RECIPE)
    return JobFile(data=Path("data/clip"), recipe=recipe)


@pytest.mark.parametrize("use, path", [
    (lambda: read_toml(Path("jobs/mine.toml")), "jobs/mine.toml"),
    (lambda: read_json(Path("runs/x/config.json"), "train first"), "runs/x/config.json"),
    # not beside the recipe, but where the command was typed
    (lambda: job_of(Path("preprocess/clip.toml")).check_source(), "clips/nowhere.mp4"),
    (lambda: plan_dataset(Recipe(video=Path("nowhere.mp4"), out=Path("o"))), "nowhere.mp4"),
    (lambda: plan_dataset(Recipe(frames=Path("nowhere"), out=Path("o"))), "nowhere"),
])
def test_a_relative_path_is_told_with_its_folder(tmp_path, monkeypatch, use, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        use()
    assert f"{path}: not found in {tmp_path}" in str(refused.value)


def test_a_pattern_too_and_an_absolute_path_without(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no file matches this pattern in "):
        plan_dataset(Recipe(field=Path("none*.nc"), out=Path("o"), variable="t"))
    with pytest.raises(InputError) as refused:
        read_toml(tmp_path / "none.toml")
    assert str(refused.value).startswith(f"{tmp_path}/none.toml: not found; ")
