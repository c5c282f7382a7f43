# shellcheck shell=bash
# Read by train_*.sbatch and ablation.sbatch: training on every rank of the job. $1 is the job file, the rest its settings.
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
