"""What SLURM's partitions allow a job: time, nodes, and the cores, memory and GPUs of a node."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from hpc_vsr.system.slurm import run_command

UNLIMITED = ("UNLIMITED", "INFINITE", "NONE", "(null)", "N/A", "")
UNCONFIGURED_MB = 1  # SLURM's memory of a node whose memory nobody has configured


@dataclass(frozen=True)
class NodeKind:
    """Some nodes that are alike.

    Attributes
    ----------
    count : int
        How many there are.
    cpus : int
    memory_mb : float
        Infinite if it is not configured.
    gpus : dict
        {type: number} of the GPUs that SLURM knows; the type is empty if it has no name.
    features : frozenset of str
        What ``--constraint`` may ask for.
    """

    count: int
    cpus: int
    memory_mb: float
    gpus: dict[str, int] = field(default_factory=dict)
    features: frozenset[str] = frozenset()

    def num_gpus(self, kind: str | None = None) -> int:
        """Return the number of GPUs of a node, of one type or of any."""
        return self.gpus.get(kind, 0) if kind else sum(self.gpus.values())


@dataclass(frozen=True)
class Partition:
    """A partition; what is not limited is infinite.

    Attributes
    ----------
    name : str
    is_default : bool
    minutes : float
        Longest time limit of a job.
    max_nodes : float
        Most nodes of a job.
    max_cpus, max_memory_mb : float
        Most cores and memory of a job on a node.
    kinds : tuple of NodeKind
    """

    name: str
    is_default: bool
    minutes: float
    max_nodes: float
    max_cpus: float
    max_memory_mb: float
    kinds: tuple[NodeKind, ...] = ()


def read_partitions() -> dict[str, Partition]:
    """Return {name: partition}, also of hidden ones, with two queries.

    Raises
    ------
    Failed
        If SLURM does not answer.
    """
    return parse_partitions(run_command("scontrol", "--all", "--oneliner", "show", "partition"),
                            run_command("sinfo", "--all", "--exact", "--noheader", "--format=%R|%D|%c|%m|%G|%f"))


def parse_partitions(partitions: str, nodes: str) -> dict[str, Partition]:
    """Return {name: partition} from the answers of scontrol and sinfo."""
    kinds: dict[str, list[NodeKind]] = {}
    for line in nodes.splitlines():
        name, *rest = line.strip().split("|")
        if len(rest) == 5 and all(word.isdecimal() for word in rest[:3]):
            kinds.setdefault(name, []).append(_parse_kind(rest))
    found = {}
    for line in partitions.splitlines():
        values = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if name := values.get("PartitionName"):
            found[name] = Partition(
                name, values.get("Default") == "YES", parse_minutes(values.get("MaxTime", "")),
                _parse_number(values.get("MaxNodes", "")), _parse_number(values.get("MaxCPUsPerNode", "")),
                _parse_number(values.get("MaxMemPerNode", "")), tuple(kinds.get(name, ())))
    return found


def _parse_kind(words: Sequence[str]) -> NodeKind:
    count, cpus, memory = map(int, words[:3])
    gpus: dict[str, int] = {}
    for kind, number in re.findall(r"\bgpu:(?:([A-Za-z_][\w.-]*|\d+g\.[\w.+-]+):)?(\d+)", words[3]):
        gpus[kind] = gpus.get(kind, 0) + int(number)
    return NodeKind(count, cpus, memory if memory > UNCONFIGURED_MB else math.inf, gpus, frozenset(words[4].split(",")))


def _parse_number(text: str) -> float:
    return int(text) if text.isdecimal() else math.inf


def parse_minutes(text: str) -> float:
    """Return the minutes of a time as SLURM writes it: D-HH:MM:SS, HH:MM:SS, MM:SS or UNLIMITED."""
    if text.upper() in UNLIMITED or not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", text):
        return math.inf
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    hours, minutes, seconds = ([0] * (3 - len(parts)) + parts) if not days else (parts + [0, 0])[:3]
    return (int(days or 0) * 24 + hours) * 60 + minutes + seconds / 60
