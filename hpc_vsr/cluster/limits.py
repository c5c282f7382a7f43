"""Compares what the jobs of a job file ask for with what their partitions allow, before they are submitted."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence

from hpc_vsr.cluster.parameters import PREPROCESSING, TRAINING, Stage, stage_options
from hpc_vsr.cluster.site import Site
from hpc_vsr.experiment.resources import Resources
from hpc_vsr.system.errors import Failed, InputError
from hpc_vsr.system.partitions import NodeKind, Partition, read_partitions
from hpc_vsr.system.sbatch import Options

SLICE = re.compile(r"\d+g\.\d+gb", re.IGNORECASE)  # NVIDIA's names of slices of a GPU (MIG)


def check_limits(stages: Sequence[Stage], resources: Resources, site: Site, refuse: bool = True) -> None:
    """Raise `InputError` if SLURM would never start one of the jobs; it names the keys that ask for too much.

    A QOS may lift the limits of a partition, and some clusters choose the partition of a job that names none. What is
    found then is only a warning, as it is with `refuse` off. If SLURM does not answer, sbatch has the last word.
    """
    check_slices(resources, site)
    try:
        partitions = read_partitions()
    except Failed:
        return
    certain = []
    for stage in stages:
        options = stage_options(stage, resources, site)
        for told in find_excess(stage, options, resources, partitions):
            if refuse and _decides_alone(options):
                certain.append(f"the {stage}: {told}")
            else:
                print(f"warning: the {stage} may never start: {told}", file=sys.stderr)
    if certain:
        raise InputError(f"--cluster slurm: would never start: {'; '.join(certain)}; change [resources] or the site's "
                         "file")


def check_slices(resources: Resources, site: Site) -> None:
    """Raise `InputError` for several ranks on slices of GPUs (MIG), which NCCL cannot join."""
    ranks = resources.nodes * resources.ranks_per_node
    if site.gpu_type and SLICE.search(site.gpu_type) and resources.gpus_per_node and ranks > 1:
        raise InputError(f"gpu_type: {site.gpu_type} is a slice of a GPU (MIG), and NCCL cannot join the {ranks} ranks "
                         "(nodes x ranks_per_node) of slices; train on one rank, or ask for whole GPUs")


def _decides_alone(options: Options) -> bool:
    """Return whether a job names its partition, and no QOS that may lift the limits."""
    return "qos" not in options and "partition" in options


def find_excess(stage: Stage, options: Options, resources: Resources, partitions: dict[str, Partition]) -> list[str]:
    """Return what a job asks for beyond its partition, each with its keys; empty if it can start.

    A job may name several partitions ("a,b"); one in which it can start is enough.
    """
    named = str(options.get("partition", "")).split(",")
    chosen = [partition for partition in partitions.values()
              if (partition.is_default if named == [""] else partition.name in named)]
    if named != [""] and not chosen:
        return [f"partition {options['partition']!r} is not on this cluster, which has {', '.join(sorted(partitions))}"]
    told = [list(_excess(keys_of(stage, resources), options, partition)) for partition in chosen]
    return min(told, key=len, default=[])


def keys_of(stage: Stage, resources: Resources) -> dict[str, str]:
    """Return the keys of ``[resources]`` that decide {what a job asks for}, with their values."""
    before = {PREPROCESSING: "preprocess_", TRAINING: ""}.get(stage, "report_")

    def key(name: str) -> str:
        return f"{before}{name} ({getattr(resources, before + name):g})"

    keys = {"hours": key("hours"), "memory": key("memory_gb")}
    if stage == PREPROCESSING:
        cores = key("ranks") + (f" x {key('cpus')}" if resources.preprocess_cpus > 1 else "")
        return {**keys, "nodes": key("nodes"), "cores": cores}
    if stage == TRAINING:
        ranks = f"{key('ranks_per_node')} x " if resources.ranks_per_node > 1 else ""
        return {**keys, "nodes": key("nodes"), "cores": f"{ranks}{key('cpus_per_rank')}", "GPUs": key("gpus_per_node")}
    cores = key("cpus") if resources.report_cpus is not None else f"cpus_per_rank ({resources.cpus_per_rank})"
    return {**keys, "nodes": "nodes (1)", "cores": cores}


def format_keys(stage: Stage, resources: Resources) -> str:
    """Return all keys that decide what a job asks for, in words."""
    return ", ".join(text for text in keys_of(stage, resources).values() if not text.endswith(" (0)"))


def _excess(keys: dict[str, str], options: Options, partition: Partition) -> Iterator[str]:
    """Yield what a job asks for beyond one partition."""
    where, nodes = f"partition {partition.name}", int(options["nodes"])
    if int(options["time"]) > partition.minutes:
        yield f"{keys['hours']}: {where} allows {partition.minutes / 60:g} h"
    if nodes > partition.max_nodes:
        yield f"{keys['nodes']}: {where} allows {partition.max_nodes:g} a job"
    constraint = str(options.get("constraint", ""))
    is_simple = re.fullmatch(r"[\w.-]+", constraint)  # only such a constraint is understood here
    kinds = [kind for kind in partition.kinds if not is_simple or constraint in kind.features]
    if not kinds:
        if partition.kinds:
            yield f"constraint: no node of {where} has {constraint!r}"
        return
    # each thing by itself, and if each can be had, all of them together
    fits: list[Callable[[NodeKind], bool]] = []
    for name, asked, unit, most_of in _asked_of_node(options, partition):
        most = max(map(most_of, kinds))
        others = sorted({gpu for kind in kinds for gpu in kind.gpus}) if name == "GPUs" else []
        if not most and others:
            named = ", ".join(filter(None, others))
            has = (f"it has {named}; name that as gpu_type in the site file" if named else
                   "its GPUs have no type; leave gpu_type out of the site file")
            yield f"{keys[name]}: no node of {where} has {unit}; {has}"
        elif not most:
            yield (f"{keys[name]}: no node of {where} has {unit} that SLURM knows of; if the partition alone "
                   'decides there, write gpu_option = "none" into the site file')
        elif asked > most:
            yield f"{keys[name]}: {asked:.4g} {unit} on a node, and no node of {where} has more than {most:.4g}"
        fits.append(lambda kind, asked=asked, most_of=most_of: asked <= most_of(kind))
    suitable = sum(kind.count for kind in kinds if all(fit(kind) for fit in fits))
    if nodes > suitable and all(any(fit(kind) for kind in kinds) for fit in fits):
        what = ", ".join(keys[name] for name, *_ in _asked_of_node(options, partition))
        yield f"{keys['nodes']}: {where} has {suitable} node{'s' * (suitable != 1)} for {what} together"


def _asked_of_node(options: Options, partition: Partition
                   ) -> Iterator[tuple[str, float, str, Callable[[NodeKind], float]]]:
    """Yield what a job asks of each node: its name, how much, its unit, and a function of what a node has."""
    cores = int(options["ntasks-per-node"]) * int(options["cpus-per-task"])
    yield "cores", cores, "cores", lambda kind: min(kind.cpus, partition.max_cpus)
    megabytes = {"mem": 1, "mem-per-cpu": cores}
    for name, times in megabytes.items():
        if name in options:
            yield ("memory", int(str(options[name]).removesuffix("M")) * times / 1024, "GB",
                   lambda kind: min(kind.memory_mb, partition.max_memory_mb) / 1024)
    gpus = str(options.get("gpus-per-node", "")) or next(
        (one.removeprefix("gpu:") for one in str(options.get("gres", "")).split(",") if one.startswith("gpu:")), "")
    if gpus:
        kind_of_gpu, _, count = gpus.rpartition(":")
        unit = f"GPUs of type {kind_of_gpu}" if kind_of_gpu else "GPUs"
        yield "GPUs", int(count), unit, lambda kind: kind.num_gpus(kind_of_gpu or None)
