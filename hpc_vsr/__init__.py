"""High-resolution video from low-resolution video, on SLURM clusters and on a laptop.

Every stage is ``python -m hpc_vsr.STAGE`` and ``hpc-vsr STAGE``; see ``hpc-vsr --help``.
"""

__version__ = "0.1.0"
