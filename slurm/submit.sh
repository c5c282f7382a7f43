#!/usr/bin/env bash
# sbatch that prints the number of the job and nothing else, for the --dependency of the next one:
#
#   data=$(bash slurm/submit.sh $HPC_VSR_CPU slurm/preprocess.sbatch --recipe preprocess/diamond.toml)
#
# `sbatch --parsable` prints "NUMBER;CLUSTER" on some clusters, and others print a banner before it.
set -euo pipefail

# Submitted from inside a job, the new one would inherit its binding and run slower without a word.
if [ -n "${SLURM_JOB_ID:-}" ]; then
    for name in $(compgen -e | grep -E '^(SLURM|SBATCH|SRUN|PMI|PMIX)_' | grep -vE '^SLURM_(CONF$|HPC_VSR_)'); do
        unset "$name"
    done
fi
command -v sbatch >/dev/null || { echo "error: sbatch is not on this machine: log in to the cluster" >&2; exit 2; }

said=$(sbatch --parsable "$@")
line='^([0-9]+)(;[^[:space:]]+)?[[:space:]]*$'
sed -E "/$line/d" <<<"$said" >&2
number=$(sed -nE "s/$line/\\1/p" <<<"$said" | tail -n 1)
[ -n "$number" ] || { echo "error: sbatch said no number of a job; 'squeue --me' shows whether it has one" >&2; exit 2; }
echo "$number"
