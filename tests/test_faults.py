"""A short campaign of faults (`make faults` runs a longer one), and that it sees what is lost."""

from __future__ import annotations

import re
import subprocess
import sys

from conftest import ROOT


def campaign(*arguments: str, before: str = "") -> subprocess.CompletedProcess:
    program = str(ROOT / "tests" / "faults")
    code = (f"import runpy, sys; sys.argv = ['faults', *{list(arguments)!r}]; sys.path.insert(0, {str(ROOT)!r})\n"
            f"{before}\nrunpy.run_path({program!r}, run_name='__main__')")
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=900,
                          check=False)


def test_nothing_is_lost():
    done = campaign("--number", "12", "--workers", "1")
    assert done.returncode == 0, done.stderr + done.stdout
    row = re.search(r"^all +(\d+) +(\d+) +(\d+) +(\d+)$", done.stdout, re.M)
    tried, survived, refused, lost = map(int, row.groups())
    assert tried == survived + refused and lost == 0 and survived > 10 and refused > 30


def test_a_training_on_a_damaged_shard_would_be_seen():
    """Fault 19 of seed 5 flips a bit in a shard; here the checksums are not compared."""
    blind = "import hpc_vsr.manifest as manifest; manifest.check_shards = lambda *arguments: None"
    done = campaign("--family", "damage", "--only", "19", "--seed", "5", "--workers", "1", before=blind)
    assert done.returncode == 1 and "trained on it" in done.stderr, done.stderr + done.stdout
