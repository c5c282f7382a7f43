"""Without its environment every command says in one line what is missing, as slurm/environment.sh does."""

from __future__ import annotations

import subprocess
import sys

import pytest
from repository import ROOT

from hpc_vsr.__main__ import STAGES


def run(folder, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=False, cwd=folder,
                          env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{folder / 'without'}:{ROOT}"})


def hide(folder, *libraries: str) -> None:
    for name in libraries:
        (folder / "without" / name).mkdir(parents=True)
        (folder / "without" / name / "__init__.py").write_text(
            f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')")


def assert_one_line(done: subprocess.CompletedProcess, library: str) -> None:
    assert done.returncode == 2 and not done.stdout, done
    line, = done.stderr.splitlines()
    assert line.startswith(f"error: {sys.executable} on ")
    assert f" cannot run hpc-vsr (No module named '{library}'): run 'make setup' in its folder" in line
    assert line.endswith(" or load your environment, and run the same command again")


@pytest.mark.parametrize("stage", STAGES)
def test_a_command_without_the_libraries_of_its_options(tmp_path, stage):
    hide(tmp_path, "jsonargparse")
    assert_one_line(run(tmp_path, f"hpc_vsr.{stage}", "--help"), "jsonargparse")


@pytest.mark.parametrize("stage", ["doctor", "train"])
def test_a_command_without_torch(tmp_path, stage):
    hide(tmp_path, "torch", "submitit")
    more = ("--config", ROOT / "jobs" / "delta.toml") if stage == "train" else ()
    assert_one_line(run(tmp_path, f"hpc_vsr.{stage}", *map(str, more)), "torch")


def test_launch_without_submitit(tmp_path):
    hide(tmp_path, "torch", "submitit")
    job = str(ROOT / "jobs" / "delta.toml")
    assert_one_line(run(tmp_path, "hpc_vsr.launch", "--config", job, "--cluster", "local"), "submitit")


def test_a_mistake_of_ours_is_still_a_traceback(tmp_path):
    """A module of our own that is missing is no matter of the environment."""
    code = ("from hpc_vsr.system.errors import exit_status\n"
            "def main(_):\n    import hpc_vsr.nowhere\nraise SystemExit(exit_status(main))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1 and "ModuleNotFoundError: No module named 'hpc_vsr.nowhere'" in done.stderr
