"""Checks whether SLURM answers, and those of its settings that matter to a long training."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator

from hpc_vsr.doctor.findings import Finding, ask, last_line
from hpc_vsr.experiment.sweep import MAX_POINTS
from hpc_vsr.system import slurm as cluster

OLDEST = (20, 11)
SHOWN_PARTITIONS = 8


def check_slurm() -> Iterator[Finding]:
    """Check SLURM's version, requeueing, arrays, partitions and accounts."""
    if not cluster.has_slurm():
        yield Finding("SLURM", "commands", "warning", "no squeue on this machine, so no --cluster slurm",
                      "log in to the cluster; --cluster local works everywhere")
        return
    config = ask(["scontrol", "show", "config"])
    if config.returncode:
        yield Finding("SLURM", "controller", "broken", last_line(config),
                      "check SLURM_CONF and whether SLURM is up, or ask the cluster's support")
        return
    done = ask(["sinfo", "--version"])
    version = tuple(map(int, re.findall(r"\d+", done.stdout)[:2]))
    yield Finding("SLURM", "version", "ok" if version >= OLDEST else "warning", done.stdout.strip() or last_line(done),
                  "" if version >= OLDEST else f"hpc-vsr was not tried with versions before {OLDEST[0]}.{OLDEST[1]:02}")
    settings = dict(re.findall(r"^(\w+)\s+= (.*?)\s*$", config.stdout, re.MULTILINE))
    yield Finding("SLURM", "controller", "ok", f"{settings.get('ClusterName', '?')} answers")
    yield from _requeue(settings)
    limit = int(settings.get("MaxArraySize", "0"))
    yield Finding("SLURM", "arrays", "ok" if limit > MAX_POINTS else "warning", f"up to {limit - 1} elements",
                  "" if limit > MAX_POINTS else "split a larger sweep over several job files")
    yield from _partitions()
    yield from _accounts(settings)


def _requeue(settings: dict[str, str]) -> Iterator[Finding]:
    asked = "" if settings.get("JobRequeue") == "1" else ", off by default; every script of hpc-vsr asks for it"
    preempt = settings.get("PreemptMode", "OFF")
    yield Finding("SLURM", "requeue", "ok", f"JobRequeue={settings.get('JobRequeue', '?')}{asked}")
    if "CANCEL" in preempt:
        yield Finding("SLURM", "preemption", "warning", f"PreemptMode={preempt}: preempted jobs are cancelled",
                      "launch again after a preemption; the run resumes from its last checkpoint")
    else:
        yield Finding("SLURM", "preemption", "ok", f"PreemptMode={preempt}; {settings.get('KillWait', '?')} from TERM "
                      "to KILL (KillWait)")


def _partitions() -> Iterator[Finding]:
    done = ask(["sinfo", "--noheader", "--format=%P|%a|%l|%D|%G"])
    rows = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 4]
    up = [f"{name} ({nodes} nodes, {gres if gres != '(null)' else 'no GPU'}, {limit})"
          for name, state, limit, nodes, gres in rows if state == "up"]
    if not up:
        yield Finding("SLURM", "partitions", "broken", f"none is up: {last_line(done)}", "ask the cluster's support")
        return
    more = f" and {len(up) - SHOWN_PARTITIONS} more" if len(up) > SHOWN_PARTITIONS else ""
    yield Finding("SLURM", "partitions", "ok", ", ".join(up[:SHOWN_PARTITIONS]) + more)


def _accounts(settings: dict[str, str]) -> Iterator[Finding]:
    if "none" in settings.get("AccountingStorageType", "none"):
        yield Finding("SLURM", "accounting", "ok", "none; launch and status work without it")
        return
    done = ask(["sacctmgr", "--noheader", "--parsable2", "show", "associations", f"user={getpass.getuser()}",
                "format=account,partition,qos"])
    if done.returncode:
        yield Finding("SLURM", "accounts", "warning", last_line(done), "launch and status work without accounting")
        return
    accounts = sorted({line.split("|")[0] for line in done.stdout.splitlines() if line})
    yield Finding("SLURM", "accounts", "ok" if accounts else "warning", ", ".join(accounts) or "none of yours",
                  "" if accounts else "ask for an allocation, or leave account out of the site file")
