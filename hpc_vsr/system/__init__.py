"""What every stage stands on: settings, files, locks, signals, memory, ranks, GPUs, SLURM."""
