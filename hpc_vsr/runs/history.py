"""Reads and writes ``metrics.jsonl``, the history of a training: one JSON object per line, appended as it runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hpc_vsr.system.files import append_text, write_text


def append_record(path: Path, record: dict) -> None:
    """Append one line; NaN and infinity, which JSON does not have, become null."""
    append_text(path, json.dumps(_finite(record), allow_nan=False) + "\n")


def read_history(path: Path) -> list[dict]:
    """Return the records of a file without lines cut off by a kill or damaged by a disk; none if there is no file."""
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and type(record.get("step")) is int:
            records.append(record)
    return records


def forget_after(path: Path, step: int) -> None:
    """Drop the records that a killed process wrote after its last checkpoint; the resumed run writes them again."""
    if path.exists():
        write_text(path, "".join(json.dumps(record) + "\n" for record in read_history(path) if record["step"] <= step))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
