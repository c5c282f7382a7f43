"""The handbook builds without a warning, and the commands of its tutorials and of the README run as they stand."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from machine import find_mpiexec
from repository import ROOT, child_environment
from stages import run_code, run_stage

pytestmark = pytest.mark.slow

SHORTER = {  # appended only for the test
    "train": ["--train.steps", "6", "--train.batch_size", "2", "--train.patch_size", "12", "--train.device", "cpu"],
    "evaluate": ["--pictures", "1"],
}


def blocks(path: Path, languages: tuple[str, ...]) -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks."""
    return [(language, text) for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(), re.M | re.S)
            if language in languages]


@pytest.fixture
def project(tmp_path, clip) -> Path:
    """A folder with what the commands name; the samples are short."""
    for name in ("jobs", "slurm"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "preprocess", tmp_path / "preprocess")
    sample = tmp_path / "preprocess" / "sample"
    for name in ("diamond.mp4", "diamond_lr.mkv"):
        shutil.copy(clip, sample / name)
    return tmp_path


def run_command(line: str, folder: Path) -> None:
    launcher, _, stage = line.partition("python -m hpc_vsr.")
    launcher, words = shlex.split(launcher), shlex.split(stage, comments=True)
    if not stage:  # such as cp
        subprocess.run(launcher, cwd=folder, check=True)
        return
    if launcher:
        assert launcher.pop(0) == "mpiexec"
        launcher.insert(0, find_mpiexec())
    done = run_stage(*words, *SHORTER.get(words[0], []), launcher=launcher, cwd=folder)
    assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"


@pytest.mark.mpi
@pytest.mark.parametrize(("tutorial", "made"), [
    ("video", ("data/sharp/dataset.json", "reports/sharp/index.html", "compared.mp4", "fine.mp4",
               "exports/sharp/README.md")),
    ("field", ("data/vorticity/dataset.json", "reports/vorticity/index.html", "finer.nc")),
])
def test_the_commands_of_a_tutorial_run_as_they_stand(project, tutorial, made):
    for language, text in blocks(ROOT / "docs" / "tutorials" / f"{tutorial}.md", ("sh", "python")):
        if language == "python":
            done = run_code(text, cwd=project)
            assert done.returncode == 0, done.stderr
            continue
        for line in text.splitlines():
            run_command(line, project)
    assert not [name for name in made if not (project / name).is_file()]


@pytest.mark.mpi
def test_the_commands_of_the_readme_for_an_own_video_run_as_they_stand(project, clip):
    for name in ("diamond.mp4", "in.mp4"):
        shutil.copy(clip, project / name)
    section = re.search(r"## Your own video\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.S)[1]
    lines = [line for block in re.findall(r"^```\n(.*?)^```", section, re.S | re.M) for line in block.splitlines()]
    assert len(lines) == 7
    for line in lines:
        if not line.startswith("pip "):
            run_command(line.replace("mpiexec -n 8", "mpiexec -n 2"), project)
    assert (project / "double.mp4").is_file()
    assert (project / "out.mp4").is_file() and (project / "reports/diamond/index.html").is_file()


def test_the_handbook_builds_without_a_warning(tmp_path):
    done = subprocess.run([sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "docs",
                           tmp_path / "html"], cwd=ROOT, capture_output=True, text=True, check=False,
                          env=child_environment())
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "html" / "reference" / "commands.html").read_text()
    python = (tmp_path / "html" / "reference" / "python.html").read_text()
    assert "--back-projection" in commands and run_stage("upscale", "--help").stdout.splitlines()[2] in commands
    assert "hpc_vsr.upscale.upscaler.Upscaler.upscale" in python


def test_the_dry_runs_of_the_cluster_tutorial_run_as_they_stand(project):
    tutorial = blocks(ROOT / "docs" / "tutorials" / "cluster.md", ("sh",))
    dry = [line for _, text in tutorial for line in text.splitlines() if line.endswith("--dry-run")]
    assert len(dry) == 2
    for line in dry:
        run_command(line, project)
