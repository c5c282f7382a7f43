"""Reads and writes ``metrics.jsonl``, the history of a training: one JSON object in each line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hpc_vsr.system.files import append_text, write_text


def append_record(path: Path, record: dict) -> None:
    """Append a record; NaN and infinity become null, because JSON has no such numbers."""
    append_text(path, json.dumps(_without_infinity(record), allow_nan=False) + "\n")


def read_history(path: Path) -> list[dict]:
    """Return the records of a file; skip lines that are cut off or damaged. Without a file there are none."""
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and type(record.get("step")) is int:
            records.append(record)
    return records


def drop_records_after(path: Path, step: int) -> None:
    """Drop the records after `step`, the last checkpoint of a killed process; the resumed run writes them again."""
    if path.exists():
        write_text(path, "".join(json.dumps(record) + "\n" for record in read_history(path) if record["step"] <= step))


def _without_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_infinity(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
