"""`python -m hpc_vsr.mpi` prints the value of `srun --mpi` for this environment's MPI; the scripts in slurm/ use it."""

from hpc_vsr.system.mpi import srun_type

if __name__ == "__main__":
    print(srun_type())
