"""The base of every stage: settings, files, locks, signals, memory, ranks, GPUs, SLURM."""
