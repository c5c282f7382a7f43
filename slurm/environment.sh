# shellcheck shell=bash
# Read by every script of this folder, on the node: makes the Python environment ready and says what is missing.
#   HPC_VSR_SETUP  shell lines of your site; `eval "$(python -m hpc_vsr.site --site FILE)"` sets it
#   HPC_VSR_MPI    what `srun --mpi` starts MPI ranks with: pmi2, pmix, or auto

stop() {
    echo "error: $*" >&2
    exit 2
}

# sbatch starts a script in the folder that it was submitted from, and runs a copy of it from elsewhere.
if [ ! -d hpc_vsr ] || [ ! -d jobs ]; then
    stop "$PWD is not the folder of hpc-vsr: cd to it and submit from there"
fi

# With `sbatch --export=NONE`, or SBATCH_EXPORT=NONE, which is the default of some clusters, only variables that begin with
# SLURM_ come with the job.
: "${HPC_VSR_SETUP:=${SLURM_HPC_VSR_SETUP:-}}" "${HPC_VSR_MPI:=${SLURM_HPC_VSR_MPI:-}}"
if [ -n "$HPC_VSR_SETUP" ]; then
    set +eu                         # lines of a site may use unset variables, and fail without harm
    eval "$HPC_VSR_SETUP"
elif [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -f .venv/bin/activate ]; then
    # shellcheck source=/dev/null
    source .venv/bin/activate
fi
mend="run 'make setup' here, or load your environment, and submit again"
if [ "${SLURM_EXPORT_ENV:-}" = NONE ]; then
    mend="the job gets no variables of your shell (SBATCH_EXPORT=NONE or --export=NONE): run 'make setup' here, or write the lines that\
 load your environment into setup of your site's file and evaluate that (docs/slurm.md), or give --export=ALL; then submit again"
fi
command -v python >/dev/null || stop "no python on $(hostname): $mend"
if ! reason=$(python -c "import hpc_vsr, h5py, jsonargparse, submitit, importlib.metadata as m; m.version('torch')" 2>&1); then
    stop "$(command -v python) on $(hostname) cannot run hpc-vsr (${reason##*$'\n'}): $mend"
fi

# srun of SLURM 22.05 and later does not take --cpus-per-task from sbatch: every rank would get one core.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
# After `sbatch --export=NONE` srun would give the ranks neither this PATH nor anything else that was set here.
export SLURM_EXPORT_ENV=ALL
# Lines of a log appear as they are printed.
export PYTHONUNBUFFERED=1

# SLURM tells a preempted job to end some time before it takes it off the node and requeues it. Preprocessing and report go on
# until then: a job that ends by itself meanwhile would count as failed and not be requeued.
# shellcheck disable=SC2034 # the scripts use it
until_killed=(bash -c 'trap "" TERM; exec "$@"' --)
