"""Runs all checks in the order of the table. A check that fails itself is also a finding."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hpc_vsr
from hpc_vsr.doctor.arithmetic import check_auto_precision, check_convolutions, check_gpus
from hpc_vsr.doctor.findings import Finding
from hpc_vsr.doctor.ranks import check_mpi, check_process_group, check_srun_mpi
from hpc_vsr.doctor.slurm import check_slurm
from hpc_vsr.doctor.storage import check_storage
from hpc_vsr.system import slurm as cluster
from hpc_vsr.system.errors import InputError


def run_checks(folders: Sequence[Path]) -> Iterator[Finding]:
    """Yield the findings, each as soon as it is there.

    Parameters
    ----------
    folders : sequence of Path
        Folders in which data sets and runs will be kept; they need not exist.
    """
    yield Finding("software", "hpc-vsr", "ok", f"{hpc_vsr.__version__}, Python {platform.python_version()} on "
                  f"{platform.machine()}, {Path(hpc_vsr.__file__).parent}")
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("MPI", check_mpi), *([("MPI", check_srun_mpi)] if cluster.has_slurm() else []), ("SLURM", check_slurm),
        ("GPU", check_gpus), ("arithmetic", check_convolutions), ("precision", check_auto_precision),
        ("training", check_process_group), ("storage", lambda: check_storage(folders))]
    for topic, check in checks:
        try:
            yield from check()
        except InputError as error:
            yield Finding(topic, "check", "broken", str(error))
        except Exception as error:
            yield Finding(topic, "check", "broken", f"the check itself failed: {type(error).__name__}: {error}",
                          "please report this line")
