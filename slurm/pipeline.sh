#!/usr/bin/env bash
# Submit the whole chain: the data set, a job array of the training runs, the report.
#
#   bash slurm/pipeline.sh jobs/delta.toml [settings of the job file]
#   RECIPE=preprocess/diamond.toml bash slurm/pipeline.sh jobs/delta.toml
#
#   RECIPE      make the data set of this recipe first, under MPI
#   MAX_RUNS    how many runs of a sweep train at a time (4)
#   eval "$(python -m hpc_vsr.site --site FILE)"     partition, account and other options of your cluster
#   PREPROCESS_OPTIONS, TRAIN_OPTIONS, REPORT_OPTIONS     more options of sbatch, such as --exclusive
# The jobs ask for what [resources] of the job file says; `python -m hpc_vsr job options --config JOB_FILE` shows it.
#
# `python -m hpc_vsr.launch --cluster slurm` submits the same chain and leaves out what is finished or in the queue; this
# script is for those who want to see or to change it.
set -euo pipefail
cd "$(dirname "$0")/.."

source slurm/environment.sh
set -euo pipefail
[ -n "${1:-}" ] || stop "name a job file: bash slurm/pipeline.sh jobs/delta.toml"
command -v sbatch >/dev/null || stop "sbatch is not on this machine: log in to the cluster"

options() {
    python -m hpc_vsr job options --stage "$@"
}
made=$(options preprocessing --config "$@")
read -ra preprocess <<<"$made ${PREPROCESS_OPTIONS:-}"
trained=$(options training --config "$@")
read -ra train <<<"$trained ${TRAIN_OPTIONS:-}"
measured=$(options report --config "$@")
read -ra measure <<<"$measured ${REPORT_OPTIONS:-}"
count=$(python -m hpc_vsr job points --config "$@")
name=$(basename "$1" .toml)

data=
[ -z "${RECIPE:-}" ] || python -m hpc_vsr.preprocess --recipe "$RECIPE" --dry-run >/dev/null

jobs=()
undo() {
    [ ${#jobs[@]} -eq 0 ] || { scancel "${jobs[@]}"; echo "error: sbatch refused the next one; cancelled ${jobs[*]}" >&2; }
}
trap undo ERR
after=()
if [ -n "${RECIPE:-}" ]; then
    data=$(bash slurm/submit.sh --job-name="preprocess-$name" "${preprocess[@]}" slurm/preprocess.sbatch --recipe "$RECIPE")
    jobs+=("$data")
    echo "data set  job $data"
    # Without its data set a training would wait for ever: it is cancelled instead.
    after=(--dependency="afterok:$data" --kill-on-invalid-dep=yes)
fi
training=$(bash slurm/submit.sh --job-name="train-$name" --array="0-$((count - 1))%${MAX_RUNS:-4}" "${train[@]}" "${after[@]}" \
    slurm/ablation.sbatch "$@")
jobs+=("$training")
echo "training  job $training, $count run$([ "$count" -eq 1 ] || echo s)"
report=$(bash slurm/submit.sh --job-name="report-$name" --dependency="afterany:$training" "${measure[@]}" \
    slurm/report.sbatch "$@")
echo "report    job $report"
# so that status and launch know these jobs
python -m hpc_vsr job record --submitted "${data:+preprocessing=$data,}training=$training,report=$report" \
    --config "$@"
echo "watch     python -m hpc_vsr.status --config $* --watch 60"
