# shellcheck shell=bash
# Read by train_*.sbatch and ablation.sbatch: training on every rank of the job, and the report. $1 is the job file, the
# rest its settings. One task drives one GPU. Give --data on a cluster where data/ is not beside the script.
#
# Why the heads of these scripts have their lines:
#   --requeue             many clusters requeue nothing unless asked to; the run would end at its first time limit
#   --open-mode=append    after a requeue the log goes on instead of starting anew
#   --signal=USR2@120     USR2, because NCCL catches USR1; without B: it reaches the ranks and not the shell. It may come
#                         60 s earlier
#   --output=logs/...     the folder must exist before sbatch: logs/ is part of the repository
# There is no --mem: some clusters refuse a job that asks for memory.
source slurm/environment.sh

# --kill-on-bad-exit: a rank that fails ends the job; the others would wait for it until the time limit.
# --gpu-bind=none: each rank sees the GPUs of its node and takes its own; with one visible GPU each, NVLink is lost.
# The training answers USR2 and TERM itself: it saves and sends this job back to the queue (resources.max_requeues).
# Status 75 means that it was stopped and can continue.
train() {
    local gpus=()
    [ -z "${SLURM_GPUS_ON_NODE:-}" ] || gpus=(--gpu-bind=none)
    srun --unbuffered --kill-on-bad-exit=1 --wait=60 "${gpus[@]}" python -m hpc_vsr job train --config "$@"
}

train_and_report() {
    train "$@" || exit
    # However many ranks trained, one measures.
    srun --nodes=1 --ntasks=1 "${until_killed[@]}" python -m hpc_vsr job report --config "$@"
}
