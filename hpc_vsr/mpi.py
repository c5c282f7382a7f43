"""`python -m hpc_vsr.mpi` prints what `srun --mpi` starts the ranks of this environment's MPI with; scripts ask it."""

from hpc_vsr.system.mpi import srun_type

if __name__ == "__main__":
    print(srun_type())
