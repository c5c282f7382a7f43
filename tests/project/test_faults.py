"""A short campaign of faults (`make faults` runs a longer one), and that it sees what is lost."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from repository import ROOT
from stages import run_code

pytestmark = pytest.mark.slow
CAMPAIGN = ROOT / "campaign"
# A training that does not compare its shards with their checksums, and shards whose HR frames were painted over.
BLIND = f"""
import sys
import hpc_vsr.data.manifest as manifest
manifest.check_shards = lambda *arguments: None
sys.path[:0] = {[str(CAMPAIGN), *sys.path]!r}
import damage
from hpc_vsr.data.shards import locate_planes

def paint_over(path, way, rng):
    for shard in path.parent.glob("train-*.h5"):
        planes = locate_planes(shard)["hr"]
        content = bytearray(shard.read_bytes())
        for start in planes.offsets.values():
            content[start : start + 3000] = bytes(3000)
        shard.write_bytes(content)
damage.damage = paint_over
"""


def campaign(*arguments: str, before: str = "") -> subprocess.CompletedProcess:
    code = (f"import runpy, sys; sys.argv = ['campaign', *{list(arguments)!r}]\n"
            f"{before}\nrunpy.run_path({str(CAMPAIGN)!r}, run_name='__main__')")
    return run_code(code, cwd=ROOT, timeout=850)


@pytest.mark.parametrize("family, least", [("parsers", 7), ("hostile", 60), ("files", 4), ("values", 7), ("damage", 5),
                                           ("kills", 10)])
def test_nothing_is_lost(family, least):
    """Each kind of fault once."""
    done = campaign("--number", "1", "--workers", "1", "--family", family)
    assert done.returncode == 0, done.stderr + done.stdout
    row = re.search(r"^all +(\d+) +(\d+) +(\d+) +(\d+)$", done.stdout, re.M)
    tried, survived, refused, lost = map(int, row.groups())
    assert tried == survived + refused and lost == 0 and tried >= least


def test_a_training_on_changed_shards_is_seen_by_the_campaign():
    done = campaign("--family", "damage", "--only", "0", "--workers", "1", before=BLIND)
    assert done.returncode == 1 and "trained on it" in done.stderr, done.stderr + done.stdout
