"""Checks MPI for the preprocessing, and the process group of the training."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from hpc_vsr.doctor.findings import Finding, ask, last_line
from hpc_vsr.system import mpi

NUM_RANKS = 2
SAY_SIZE = ("from hpc_vsr.system.mpi import connect; comm = connect(); "
            "import sys; sys.stdout.write(f'size {comm.size}\\n')")
# Each rank writes once, because with PYTHONUNBUFFERED two prints would mix.
SUM_UP = """
import os, sys, torch, torch.distributed as dist
from hpc_vsr.system.gpus import choose_device, own_device
device = own_device(choose_device({device!r}, int(os.environ['LOCAL_RANK'])))
dist.init_process_group('gloo' if device.type == 'cpu' else 'nccl')
number = torch.tensor(dist.get_rank() + 1.0, device=device)
dist.all_reduce(number)
sys.stdout.write(f'sum {{number.item()}}\\n')
dist.destroy_process_group()
"""
# Prefixes of the variables of launchers. A check that starts ranks must not pass on those of the job that it runs in.
LAUNCHERS = ("PMI", "PMIX", "OMPI", "MPI", "HYDRA", "RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM")


def check_mpi() -> Iterator[Finding]:
    """Check that mpi4py finds an MPI and that mpiexec starts ranks that see each other."""
    found = mpi.library()
    if found is None:
        yield Finding("MPI", "library", "warning", "mpi4py finds no MPI: preprocessing runs on one process",
                      "pip install 'hpc-vsr[mpi]' brings mpi4py and MPICH")
        return
    yield Finding("MPI", "library", "ok", f"{found}; under srun: --mpi={mpi.srun_type()}")
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        yield Finding("MPI", "mpiexec", "warning", "mpiexec is not installed; srun can start the ranks instead")
        return
    done = ask([mpiexec, "-n", NUM_RANKS, sys.executable, "-c", SAY_SIZE], _outside())
    if done.returncode == 0 and done.stdout.split() == ["size", str(NUM_RANKS)] * NUM_RANKS:
        yield Finding("MPI", "mpiexec", "ok", f"{mpiexec} starts {NUM_RANKS} ranks that see each other")
    else:
        yield Finding("MPI", "mpiexec", "broken", f"{mpiexec}: {last_line(done)}",
                      "use the mpiexec of the MPI that mpi4py was built with, or srun")


def check_srun_mpi() -> Iterator[Finding]:
    """Check whether srun knows this environment's MPI; in a job of two tasks, also whether they see each other."""
    listed = ask(["srun", "--mpi=list"])
    if ask(["scontrol", "ping"]).returncode:  # check_slurm reports the reason
        return
    types = sorted({word for line in (listed.stdout + listed.stderr).splitlines() for word in [line.strip()]
                    if word and " " not in word and ":" not in word})
    wanted = mpi.srun_type()
    if wanted in types:
        yield Finding("MPI", "srun --mpi", "ok", f"{wanted} is among {', '.join(types)}")
    else:
        yield Finding("MPI", "srun --mpi", "warning", f"{wanted}, which this MPI needs, is not among "
                      f"{', '.join(types) or 'none'}", "use mpiexec inside the job, or an MPI of the cluster")
    if int(os.environ.get("SLURM_NTASKS", 1)) >= NUM_RANKS and "SLURM_STEP_NUM_TASKS" not in os.environ:
        done = ask(["srun", f"--ntasks={NUM_RANKS}", f"--mpi={wanted}", sys.executable, "-c", SAY_SIZE])
        agree = done.stdout.splitlines().count(f"size {NUM_RANKS}") == NUM_RANKS
        yield Finding("MPI", "ranks of srun", "ok" if agree else "broken",
                      f"{NUM_RANKS} ranks that see each other" if agree else last_line(done),
                      "" if agree else "preprocess with mpiexec inside the job")


def check_process_group() -> Iterator[Finding]:
    """Check that two processes of this machine can sum up a number as the ranks of a training do."""
    yield _sum_up("gloo", "cpu", NUM_RANKS, "look for a firewall on lo, and for proxies in the environment")
    if torch.cuda.is_available():
        count = min(NUM_RANKS, torch.cuda.device_count())
        yield _sum_up("NCCL", "cuda", count, "run it again with NCCL_DEBUG=INFO")
    name = socket.gethostname()
    try:
        address = socket.getaddrinfo(name, None)[0][4][0]
    except OSError:
        yield Finding("training", "host name", "warning", f"{name} has no address, but ranks on several nodes "
                      "connect to the first node's name", "train on one node, or have the name added to /etc/hosts")
    else:
        yield Finding("training", "host name", "ok", f"{name} is {address}")


def _sum_up(library: str, device: str, count: int, advice: str) -> Finding:
    """Check whether `count` processes agree on a sum; a single one at least loads the library."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = SUM_UP.format(device=device)
    code = (f"import os, subprocess, sys\nranks = [subprocess.Popen([sys.executable, '-c', {script!r}], "
            f"env={{**os.environ, 'RANK': str(rank), 'LOCAL_RANK': str(rank)}}) for rank in range({count})]\n"
            "sys.exit(max(rank.wait() for rank in ranks))")
    done = ask([sys.executable, "-c", code], {**_outside(), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                                              "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
                                              "OMP_NUM_THREADS": "1"})
    wanted = f"{sum(range(1, count + 1)):.1f}"
    agree = done.stdout.split() == ["sum", wanted] * count
    said = f"{count} processes of this machine agree" if count > 1 else "one process; with one GPU there is no other"
    return Finding("training", library, "ok" if agree else "broken", said if agree else last_line(done),
                   "" if agree else advice)


def _outside() -> dict[str, str]:
    """Return the environment without the variables of launchers."""
    root = str(Path(__file__).resolve().parents[2])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)}
    return {**kept, "PYTHONPATH": f"{root}:{kept.get('PYTHONPATH', '')}".rstrip(":")}
