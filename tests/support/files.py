"""The content of files and folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hpc_vsr.system.files import SEAL, write_sealed


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def rewrite(path: Path, content: dict) -> None:
    """Other content for a file with a checksum, as the program itself would write it."""
    write_sealed(path, {key: value for key, value in content.items() if key != SEAL})
