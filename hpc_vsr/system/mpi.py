"""MPI ranks of preprocessing and upscaling. Without a launcher there is one process, and MPI is not used."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from hpc_vsr.system.errors import BAD_INPUT, FAILED, Failed, InputError, call_on_main, memory_failure, storage_failure

# Each launcher's variable for the number of ranks, innermost launcher first: inside a SLURM job, mpiexec's number
# counts, not that of the srun step that started mpiexec's helpers.
SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS")
SECONDS_TO_PRINT = 0.5  # time for the launcher to pass on a rank's message before it kills the rank


class SingleProcess:
    """A communicator of one process, without MPI; it has the few methods of `mpi4py.MPI.Comm` that are used."""

    rank, size = 0, 1

    def bcast(self, value: Any) -> Any:
        return value

    def allgather(self, value: Any) -> list:
        return [value]

    def Abort(self, status: int) -> NoReturn:  # noqa: N802 - the name is MPI's
        sys.exit(status)


def connect(environment: Mapping[str, str] = os.environ) -> Any:
    """Return the communicator of this job: MPI's world under a launcher, `SingleProcess` without one.

    Raises `InputError` if a launcher has started several ranks that cannot see each other: each would do all the work
    and overwrite the files of the others.
    """
    variable = next((name for name in SIZE_VARIABLES if name in environment), None)
    expected = int(environment[variable]) if variable else 1
    if expected == 1 and "OMPI_COMM_WORLD_SIZE" not in environment and "PMI_SIZE" not in environment:
        return SingleProcess()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # mpi4py reports a missing libmpi as RuntimeError
        raise InputError(f"{expected} ranks were started, but mpi4py cannot be used "
                         f"({str(error).splitlines()[0]}); 'pip install hpc-vsr[mpi]' installs mpi4py and MPICH"
                         ) from None
    comm = MPI.COMM_WORLD
    if comm.size != expected:
        raise InputError(
            f"the launcher started {expected} ranks ({variable}={expected}) but MPI sees {comm.size}: "
            "under srun add --mpi=pmi2 (MPICH) or --mpi=pmix (Open MPI); "
            "without srun, use the mpiexec of the MPI that mpi4py was built with")
    return comm


@contextlib.contextmanager
def printed_once(comm: Any) -> Iterator[None]:
    """Let only rank 0 print an `InputError` that every rank raises, such as that of a mistyped option."""
    try:
        yield
    except InputError:
        if comm.rank != 0:
            sys.exit(BAD_INPUT)
        raise


def on_main_rank(comm: Any, function: Callable[[], Any]) -> Any:
    """Call `function` on rank 0 and return its value on every rank; its `InputError` ends every rank, printed once.

    Call it inside `abort_together`, which handles any other exception of `function`.
    """
    return call_on_main(function, comm.rank == 0, comm.bcast)


def ranks_on_node(comm: Any) -> int:
    """Return the number of ranks on this node; all ranks must call it."""
    if comm.size == 1:
        return 1
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    try:
        return node.size
    finally:
        node.Free()


@contextlib.contextmanager
def abort_together(comm: Any) -> Iterator[None]:
    """End the whole job when one rank raises an exception, and print it; the other ranks would wait forever."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if comm.size == 1 or (isinstance(error, InputError) and error.agreed):
            raise
        if isinstance(error, KeyboardInterrupt):
            print(f"rank {comm.rank}: interrupted; the same command continues", file=sys.stderr, flush=True)
        elif isinstance(error, InputError):
            print(f"error: rank {comm.rank}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        elif reason := str(error) if isinstance(error, Failed) else memory_failure(error) or storage_failure(error):
            print(f"failed: rank {comm.rank}: {reason}", file=sys.stderr, flush=True)
        else:
            print(f"rank {comm.rank} of {comm.size} failed:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        time.sleep(SECONDS_TO_PRINT)
        comm.Abort(BAD_INPUT if isinstance(error, InputError) else FAILED)


def library() -> str | None:
    """Return the name and version of mpi4py's MPI, without initialising it; None if there is no MPI."""
    try:
        import mpi4py
        mpi4py.rc.initialize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError):
        return None
    return " ".join(MPI.Get_library_version().splitlines()[0].strip("\0").split())


def srun_type() -> str:
    """Return the value of `srun --mpi` for this MPI: pmix for Open MPI, pmi2 for MPICH and its relatives."""
    return "pmix" if (library() or "").startswith("Open MPI") else "pmi2"


if __name__ == "__main__":  # for the scripts in slurm/
    print(srun_type())
