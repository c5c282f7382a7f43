"""Turns low-resolution video into high-resolution video, on SLURM clusters and on a laptop.

Run a stage with ``python -m hpc_vsr.STAGE`` or ``hpc-vsr STAGE``; see ``hpc-vsr --help``. From Python:

    import hpc_vsr
    sr = hpc_vsr.load("runs/delta").upscale(frames)        # (T, h, w) to (T, s h, s w)
"""

from __future__ import annotations

import os
import typing

# Let torch's threads sleep while they wait for each other. By default they spin, and on a machine with other work a
# step then takes up to thirty times as long (docs/performance.md). torch reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if typing.TYPE_CHECKING:
    from hpc_vsr.upscale.upscaler import load

__all__ = ["load"]
__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "load":  # torch is imported only when it is needed
        from hpc_vsr.upscale.upscaler import load

        return load
    raise AttributeError(f"module 'hpc_vsr' has no attribute {name!r}")
