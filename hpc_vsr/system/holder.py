"""The holder of a folder's lock, as one line of JSON with a number that the holder keeps counting up."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from hpc_vsr.system import slurm as cluster

IDENTITY = ("host", "pid", "job", "restart", "since")


def this_process() -> dict[str, Any]:
    """Return how this process describes itself in a lock."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "job": cluster.this_job(),
            "restart": cluster.restarts(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def read_holder(path: Path) -> dict[str, Any] | None:
    """Return who holds a lock (host, pid, job, restart, since, beat); None if nobody, or if it cannot be read."""
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return holder if isinstance(holder, dict) and {*IDENTITY} <= holder.keys() else None


def write_holder(descriptor: int, holder: dict[str, Any], count: int) -> None:
    """Write a holder and its number into the open lock file, on disk."""
    text = json.dumps({**holder, "beat": count}) + "\n"
    os.pwrite(descriptor, text.encode(), 0)
    os.ftruncate(descriptor, len(text))
    os.fsync(descriptor)


def describe(holder: dict[str, Any]) -> str:
    """Return a text such as 'job 123 (process 4711 on node1, since 2026-11-22 14:03:00)'."""
    where = f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    return f"job {holder['job']} ({where})" if holder["job"] else where


def is_one(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether both are the same holder, whatever their numbers."""
    return all(one.get(key) == other[key] for key in IDENTITY)


def is_later_life(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether both are lives of the same SLURM job and `one` was started after `other`."""
    return one["job"] is not None and one["job"] == other["job"] and one["restart"] > other["restart"]


def is_alive(pid: int) -> bool:
    """Return whether this machine has such a process."""
    return Path(f"/proc/{pid}").exists()


def how_to_end(holder: dict[str, Any], me: dict[str, Any]) -> str:
    """Return the command that ends the holder: scancel for another job, else kill."""
    if holder["job"] and holder["job"] != me["job"]:
        return f"'scancel {holder['job']}'"
    return f"'kill {holder['pid']}' on {holder['host']}"
