"""Sorts files in natural order: frame2 before frame10."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def natural_order(paths: Iterable[Path]) -> list[Path]:
    """Return paths sorted by name, with digits compared as numbers; names that differ in leading zeros stay apart."""
    return sorted(paths, key=lambda path: _sort_key(path.name))


def _sort_key(name: str) -> tuple:
    parts = re.split(r"(\d+)", name.lower())
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts)), name
