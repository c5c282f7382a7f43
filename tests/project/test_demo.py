"""The stages of `make demo` in a few steps: the main job, from the bundled clip to its report and upscaled clip."""

from __future__ import annotations

import json
import re
import shlex
import shutil

import pytest
from machine import find_mpiexec
from repository import ROOT
from stages import run_stage

SHORTER = {"launch": ("--train.steps", 30, "--train.validate_every", 0, "--train.warmup_steps", 5),
           "upscale": ("--stop", 3)}


def stages_of_the_demo() -> list[list[str]]:
    """The words of its commands after `python -m hpc_vsr.`."""
    recipe = re.search(r"^demo: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
    return [shlex.split(line.partition("python -m hpc_vsr.")[2]) for line in recipe.splitlines()]


@pytest.mark.mpi
@pytest.mark.compute
def test_the_stages_of_the_demo_end_in_a_network_above_its_baselines(tmp_path):
    for name in ("jobs", "preprocess"):
        (tmp_path / name).symlink_to(ROOT / name)
    stages = stages_of_the_demo()
    assert [words[0] for words in stages] == ["preprocess", "launch", "upscale"]
    for words in stages:
        launcher = (find_mpiexec(), "-n", "2") if words[0] == "preprocess" else ()
        done = run_stage(*words, *SHORTER.get(words[0], ()), launcher=launcher, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((tmp_path / "runs/demo/report/report.json").read_text())
    psnr = {row["method"]: row["psnr"] for row in content["rows"] if row["profile"] == "paper"}
    assert psnr["bicubic"] == pytest.approx(22.28, abs=0.02) and psnr["wiener"] == pytest.approx(26.26, abs=0.02)
    assert psnr["demo"] > psnr["bicubic"] + 3.5 and psnr["demo"] > psnr["wiener"] - 0.2
    assert (tmp_path / "runs/demo/upscaled.mp4").stat().st_size > 10_000
    shutil.rmtree(tmp_path / "data")
