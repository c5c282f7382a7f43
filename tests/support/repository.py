"""The paths of the repository, and the environment of a process that uses it."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
SAMPLE = ROOT / "preprocess" / "sample" / "diamond.mp4"


def child_environment() -> dict[str, str]:
    """Return this process's environment, with the repository on the path and one thread: processes share the cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
