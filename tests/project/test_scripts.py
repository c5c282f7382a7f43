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
