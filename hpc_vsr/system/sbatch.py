"""Options of sbatch that users give as they are, such as ``--reservation=name`` or ``--exclusive``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hpc_vsr.system.errors import InputError

Options = dict[str, str | int | bool]  # {name without dashes: value, or True for a switch}

# options that follow from a key of [resources]
KEYS = {"nodes": "nodes", "ntasks": "ranks_per_node", "ntasks-per-node": "ranks_per_node",
        "cpus-per-task": "cpus_per_rank", "time": "hours", "signal": "signal_seconds", "mem": "memory_gb",
        "mem-per-cpu": "memory_gb", "gpus-per-node": "gpus_per_node"}
OURS = ("array", "dependency", "error", "job-name", "kill-on-invalid-dep", "no-requeue", "open-mode", "output",
        "parsable", "requeue", "test-only", "wait", "wrap")


def parse_options(options: Sequence[str], where: str) -> Options:
    """Return options such as ``["--exclusive", "--qos=high"]`` as {"exclusive": True, "qos": "high"}.

    Raises
    ------
    InputError
        If one is not written as ``--name`` or ``--name=value`` without spaces, or follows from a key of the job file.
        It names `where`.
    """
    parsed: Options = {}
    for option in options:
        found = re.fullmatch(r"--([a-z][a-z-]*)(?:=([^\s*?\[\]]+))?", option)
        if found is None:
            raise InputError(f"{where}: expected '--name' or '--name=value' without spaces, '*', '?' and '[', found "
                             f"{option!r}")
        name, value = found.groups()
        if name in KEYS:
            raise InputError(f"{where}: --{name} follows from a key of [resources]: set {KEYS[name]} instead")
        if name in OURS:
            raise InputError(f"{where}: --{name} is set for each job; leave it out")
        parsed[name] = True if value is None else value
    return parsed


def merge(*parts: Mapping[str, str | int | bool]) -> Options:
    """Return the options of all parts; a later one wins, but what --gres asks for is added up."""
    merged: Options = {}
    for part in parts:
        for name, value in part.items():
            merged[name] = f"{merged[name]},{value}" if name == "gres" and name in merged else value
    return merged


def format_options(options: Mapping[str, str | int | bool]) -> str:
    """Return the options as words for a command line; a shell may split the text at its spaces."""
    return " ".join(f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items())
