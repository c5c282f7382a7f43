"""Reads ``slurm/sites/NAME.toml``, which describes a cluster."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hpc_vsr.experiment.jobfile import JobFile
from hpc_vsr.experiment.resources import Resources
from hpc_vsr.system.config import from_dict, named_in_errors, read_toml
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.parser import Parser
from hpc_vsr.system.sbatch import Options, format_options, merge, parse_options

Cluster = Literal["local", "debug", "slurm"]
PROJECT = "{project}"
Mpi = Literal["auto", "pmi2", "pmix", "cray_shasta"]
GpuOption = Literal["gpus-per-node", "gres", "none"]
MemoryOption = Literal["mem", "mem-per-cpu", "none"]
SITE_VARIABLE, PROJECT_VARIABLE = "HPC_VSR_SITE", "HPC_VSR_PROJECT"  # what --site and --project were in the eval


@dataclass(frozen=True)
class Queue:
    """The queue for a kind of job; the cluster chooses what is not given.

    Attributes
    ----------
    partition, account, qos, constraint : str
        ``{project}`` stands for the name of the user's allocation.
    options : list of str
        Further options of sbatch as they are, such as ["--reservation=name", "--exclusive"].
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    options: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        parse_options(self.options, "options")
        for key, value in self.given().items():
            if re.search(r"\s|[*?\[]", value):
                raise InputError(f"{key}: expected a name without spaces, '*', '?' and '[', found {value!r}")

    def given(self) -> dict[str, str]:
        """Return {option of sbatch: value} of the names that are given, without the further options."""
        return {key: value for key, value in dataclasses.asdict(self).items()
                if value is not None and key != "options"}


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
    gpu_option : str
        How GPUs are asked for: gpus-per-node (``--gpus-per-node=v100-32:4``), gres (``--gres=gpu:v100-32:4``), or none
        where the partition alone decides.
    memory_option : str
        How memory is asked for: mem (on each node), mem-per-cpu, or none where a job may not ask for memory.
    options : list of str
        Further options of sbatch for all jobs, such as ["--mail-user=me@example.org", "--mail-type=END"].
    resources : dict
        Keys of ``[resources]`` that hold where a job file and the command line do not give them.
    gpu, cpu : Queue
        The queue for training on GPUs, and the one for preprocessing, the report and training without a GPU.
    """

    setup: tuple[str, ...] = ()
    mpi: Mpi = "auto"
    gpu_type: str | None = None
    gpu_option: GpuOption = "gpus-per-node"
    memory_option: MemoryOption = "mem"
    options: list[str] = dataclasses.field(default_factory=list)
    resources: dict[str, Any] = dataclasses.field(default_factory=dict)
    gpu: Queue = dataclasses.field(default_factory=Queue)
    cpu: Queue = dataclasses.field(default_factory=Queue)

    def __post_init__(self):
        parse_options(self.options, "options")
        if self.gpu_type is not None and not re.fullmatch(r"[\w.-]+", self.gpu_type):
            raise InputError(f"gpu_type: expected a name of letters, digits, '-', '_' and '.', found {self.gpu_type!r}")

    def gpu_options(self, count: int) -> Options:
        """Return the options of sbatch that ask for `count` GPUs on each node."""
        kind = f"{self.gpu_type}:{count}" if self.gpu_type else count
        return {"gpus-per-node": {"gpus-per-node": kind}, "gres": {"gres": f"gpu:{kind}"}, "none": {}}[self.gpu_option]


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
        if isinstance(table.get("resources"), dict):
            read = from_dict(Resources, table["resources"], f"{path}: [resources]")
            table["resources"] = {key: getattr(read, key) for key in table["resources"]}
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


def fill_in(job: JobFile, site: Site, parser: Parser) -> JobFile:
    """Return a job with the site's ``[resources]`` where neither the job file nor the command line gives them."""
    given = {*parser.file_content.get("resources", {}), *(name.removeprefix("resources.") for name in parser.given)}
    kept = {key: value for key, value in site.resources.items() if key not in given}
    return dataclasses.replace(job, resources=dataclasses.replace(job.resources, **kept))


def queue_options(site: Site, queue: Queue) -> Options:
    """Return the options of sbatch for any job in a queue."""
    return merge(queue.given(), parse_options(site.options, "options"), parse_options(queue.options, "options"))


def format_shell(site: Site, path: Path, project: str | None) -> str:
    """Return the site as shell lines that set the HPC_VSR_ variables which the scripts in slurm/ read.

    HPC_VSR_GPU asks for one GPU in the way of the site. It also takes back what the heads of the scripts ask for.
    """
    gpu = merge(site.gpu.given(), {"gpus-per-node": 0}, site.gpu_options(1), queue_options(site, Queue(
        options=site.gpu.options)))
    setup = "\n".join(site.setup)
    variables = {"HPC_VSR_GPU": format_options(gpu), "HPC_VSR_CPU": format_options(queue_options(site, site.cpu)),
                 "HPC_VSR_MPI": site.mpi, "HPC_VSR_SETUP": setup,
                 # sbatch --export=NONE keeps variables that begin with SLURM_
                 "SLURM_HPC_VSR_MPI": site.mpi, "SLURM_HPC_VSR_SETUP": setup,
                 SITE_VARIABLE: str(path.absolute()), PROJECT_VARIABLE: project or ""}
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


def add_site(parser: Parser) -> None:
    """Add --site and --project to a command line; `read_given_site` reads them."""
    parser.add_argument("--site", type=Path | None, default=None, metavar="FILE",
                        help="TOML file of the cluster, slurm/sites/NAME.toml; `launch --cluster slurm` also takes "
                             "the one whose variables this shell has evaluated")
    parser.add_argument("--project", type=str | None, default=None, metavar="NAME",
                        help="name of your allocation, which replaces {project} in the site's file")


def read_given_site(arguments: Any, or_of_shell: bool = False) -> Site:
    """Return the site of --site; without that option, a generic one or that of the shell, which is then told."""
    if arguments.site is not None or not or_of_shell or not os.environ.get(SITE_VARIABLE):
        return read_site(arguments.site, arguments.project)
    print(f"site: {os.environ[SITE_VARIABLE]} ({SITE_VARIABLE} of this shell)", file=sys.stderr)
    return read_site_of_shell(arguments.project)


def read_site_of_shell(project: str | None = None) -> Site:
    """Return the site whose variables this shell has evaluated; without any, a generic one."""
    path = os.environ.get(SITE_VARIABLE)
    return read_site(Path(path) if path else None, project or os.environ.get(PROJECT_VARIABLE) or None)
