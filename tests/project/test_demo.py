"""The stages of `make demo`, with Delta cut short: from the bundled clip to the report and the upscaled clip."""

from __future__ import annotations

import json
import re
import shlex
import shutil

import pytest
from machine import find_mpiexec
from repository import ROOT
from stages import run_stage

SHORTER = {"upscale": ("--stop", 3)}


def stages_of_the_demo() -> list[list[str]]:
    """The words of its commands after `python -m hpc_vsr.`."""
    recipe = re.search(r"^demo: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
    return [shlex.split(line.partition("python -m hpc_vsr.")[2]) for line in recipe.splitlines()]


def shorter_job() -> str:
    """Its job file, with a tenth of Delta's steps and half of compact's."""
    text = (ROOT / "jobs" / "demo.toml").read_text()
    for whole, less in (("\nsteps = 300\n", "\nsteps = 30\n"), ('"train.steps" = [1000]', '"train.steps" = [500]')):
        assert text.count(whole) == 1
        text = text.replace(whole, less)
    return text


@pytest.mark.mpi
@pytest.mark.compute
@pytest.mark.slow
def test_the_stages_of_the_demo_end_in_networks_above_the_baselines(tmp_path):
    (tmp_path / "preprocess").symlink_to(ROOT / "preprocess")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "demo.toml").write_text(shorter_job())
    stages = stages_of_the_demo()
    assert [words[0] for words in stages] == ["preprocess", "launch", "upscale"]
    for words in stages:
        launcher = (find_mpiexec(), "-n", "2") if words[0] == "preprocess" else ()
        done = run_stage(*words, *SHORTER.get(words[0], ()), launcher=launcher, cwd=tmp_path, timeout=1200)
        assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((tmp_path / "runs/demo/report/report.json").read_text())
    assert [(run["name"], run["model"]["name"]) for run in content["runs"]] == [
        ("delta", "delta"), ("compact", "compact")]
    psnr = {row["method"]: row["psnr"] for row in content["rows"] if row["profile"] == "paper"}
    assert psnr["bicubic"] == pytest.approx(22.28, abs=0.02) and psnr["wiener"] == pytest.approx(26.26, abs=0.02)
    assert psnr["delta"] > psnr["bicubic"] + 3.5 and psnr["delta"] > psnr["wiener"] - 0.2
    assert psnr["compact"] >= psnr["wiener"] + 1
    assert (tmp_path / "runs/demo/upscaled.mp4").stat().st_size > 10_000
    shutil.rmtree(tmp_path / "data")
