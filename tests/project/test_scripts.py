"""The scripts of slurm/ as text; tests/cluster/test_slurm.py runs them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from repository import ROOT

SCRIPTS = sorted([*(ROOT / "slurm").glob("*.sbatch"), *(ROOT / "slurm").glob("*.sh")])


@pytest.mark.slurm
def test_shellcheck_has_nothing_to_say():
    assert shutil.which("shellcheck"), "apt-get install shellcheck"
    done = subprocess.run(["shellcheck", "--external-sources", *SCRIPTS], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", [path for path in SCRIPTS if path.suffix == ".sbatch"], ids=lambda path: path.stem)
def test_a_script_is_requeued_keeps_its_log_and_names_no_site(path):
    text = path.read_text()
    given = re.findall(r"^#SBATCH (--[\w-]+)", text, re.MULTILINE)
    assert {"--requeue", "--open-mode", "--output", "--time", "--job-name"} <= set(given)
    assert not {"--partition", "--account", "--constraint", "--qos"} & set(given)
    assert "--output=logs/" in text and (ROOT / "logs" / ".gitignore").exists()  # SLURM does not make the folder
    assert f"slurm/{path.name}" in text.split("#SBATCH")[0], "the head shows the command"
    if "train" in text.split("source slurm/")[1]:
        assert "#SBATCH --signal=USR2@120" in text


@pytest.mark.parametrize("export, words", [
    ("ALL", ["run 'make setup' here, or load your environment, and submit again"]),
    ("NONE", ["SBATCH_EXPORT=NONE or --export=NONE", "into setup of your site's file", "or give --export=ALL"])])
def test_a_job_without_an_environment_says_how_it_gets_one(tmp_path, export, words):
    """To load it in the shell that submits is no help where the job gets nothing of that shell."""
    for folder in ("hpc_vsr", "jobs", "bin"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bin" / "hostname").symlink_to(shutil.which("hostname"))
    done = subprocess.run([shutil.which("bash"), "-c", f"source {ROOT}/slurm/environment.sh"], cwd=tmp_path,
                          env={"PATH": str(tmp_path / "bin"), "SLURM_EXPORT_ENV": export}, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: no python on ") and done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert ("load your environment, and submit again" in done.stderr) == (export == "ALL")
