"""The order of several files: frame2 before frame10."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def natural_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted by name, with digits compared as numbers; names equal but for leading zeros stay apart."""
    return sorted(paths, key=lambda path: _key(path.name))


def _key(name: str) -> tuple:
    parts = re.split(r"(\d+)", name.lower())
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), name
