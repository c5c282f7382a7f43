"""The programs of this machine, and the limits of a smaller one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from repository import ROOT


def find_mpiexec() -> str | None:
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec")


def find_browser() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def portable() -> dict[str, str]:
    """Environment variables that limit torch and OpenCV to what a processor without AVX-512 and bf16 has."""
    lines = (ROOT / "tests" / "portable.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
