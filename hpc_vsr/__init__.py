"""High-resolution video from low-resolution video, on SLURM clusters and on a laptop.

Every stage is ``python -m hpc_vsr.STAGE`` and ``hpc-vsr STAGE``; see ``hpc-vsr --help``. From Python:

    import hpc_vsr
    sr = hpc_vsr.load("runs/delta").upscale(frames)        # (T, h, w) to (T, 2h, 2w)
"""

from __future__ import annotations

import os
import typing

# Threads of torch that wait for each other sleep. By default they spin, and on a machine that has anything else to do a
# step then takes up to thirty times as long (docs/performance.md). Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if typing.TYPE_CHECKING:
    from hpc_vsr.upscale.upscaler import load

__all__ = ["load"]
__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "load":  # torch is imported when it is wanted
        from hpc_vsr.upscale.upscaler import load

        return load
    raise AttributeError(f"module 'hpc_vsr' has no attribute {name!r}")
