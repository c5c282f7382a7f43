"""Reads ``slurm/sites/NAME.toml``, which describes a cluster."""

from __future__ import annotations

import dataclasses
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hpc_vsr.system.config import from_dict, named_in_errors, read_toml
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.parser import Parser

Cluster = Literal["local", "debug", "slurm"]
PROJECT = "{project}"
Mpi = Literal["auto", "pmi2", "pmix", "cray_shasta"]


@dataclass(frozen=True)
class Queue:
    """The queue for a kind of job; the cluster chooses what is not given.

    Attributes
    ----------
    partition, account, qos, constraint : str
        ``{project}`` stands for the name of the user's allocation.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None

    def __post_init__(self):
        for key, value in self.given().items():
            if re.search(r"\s|[*?\[]", value):
                raise InputError(f"{key}: expected a name without spaces, '*', '?' and '[', found {value!r}")

    def given(self) -> dict[str, str]:
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Site:
    """The particulars of a cluster.

    Attributes
    ----------
    setup : list of str
        Shell lines to run before the work, such as `module load` or the activation of an environment.
    mpi : str
        The value of `srun --mpi`: pmi2 (MPICH), pmix (Open MPI), or auto, which asks the MPI of mpi4py.
    gpu_type : str
        The cluster's name for its GPUs, if it requires one: v100-32 makes ``--gpus-per-node=v100-32:4``.
    gpu, cpu : Queue
        The queue for training on GPUs, and the one for preprocessing, the report and training without a GPU.
    """

    setup: tuple[str, ...] = ()
    mpi: Mpi = "auto"
    gpu_type: str | None = None
    gpu: Queue = dataclasses.field(default_factory=Queue)
    cpu: Queue = dataclasses.field(default_factory=Queue)


def read_site(path: Path | None, project: str | None = None) -> Site:
    """Return the site that a TOML file describes; without a file, a generic one.

    Raises
    ------
    InputError
        If the file has a mistake, or needs the name of an allocation and `project` is None.
    """
    if path is None:
        return Site()
    table = _insert_project(read_toml(path), project, path)
    setup = table.pop("setup", [])
    if not isinstance(setup, list) or not all(isinstance(line, str) for line in setup):
        raise InputError(f"{path}: setup: expected a list of shell lines in quotes, found {setup!r}")
    with named_in_errors(path):
        site = from_dict(Site, table, str(path))
    return dataclasses.replace(site, setup=tuple(setup))


def _insert_project(value: Any, project: str | None, path: Path) -> Any:
    """Replace ``{project}`` in all texts of a table."""
    if isinstance(value, dict):
        return {key: _insert_project(item, project, path) for key, item in value.items()}
    if not isinstance(value, str) or PROJECT not in value:
        return value
    if project is None:
        raise InputError(f"{path}: {value!r} needs the name of your allocation: add --project NAME "
                         "('accounts' or 'sacctmgr show associations user=$USER' lists yours)")
    if not re.fullmatch(r"[\w.-]+", project):
        raise InputError(f"--project: expected a name of letters, digits, '-', '_' and '.', found {project!r}")
    return value.replace(PROJECT, project)


def sbatch_options(queue: Queue) -> str:
    """Return sbatch's options for a queue; a shell may split the text at its spaces."""
    return " ".join(f"--{key}={value}" for key, value in queue.given().items())


def format_shell(site: Site) -> str:
    """Return the site as shell lines that set HPC_VSR_GPU, HPC_VSR_CPU, HPC_VSR_MPI and HPC_VSR_SETUP."""
    variables = {"HPC_VSR_GPU": sbatch_options(site.gpu), "HPC_VSR_CPU": sbatch_options(site.cpu),
                 "HPC_VSR_MPI": site.mpi, "HPC_VSR_SETUP": "\n".join(site.setup)}
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


def add_site(parser: Parser) -> None:
    """Add --site and --project to a command line; `read_given_site` reads them."""
    parser.add_argument("--site", type=Path | None, default=None, metavar="FILE",
                        help="TOML file of the cluster, slurm/sites/NAME.toml")
    parser.add_argument("--project", type=str | None, default=None, metavar="NAME",
                        help="name of your allocation, which replaces {project} in the site's file")


def read_given_site(arguments: Any) -> Site:
    return read_site(arguments.site, arguments.project)
