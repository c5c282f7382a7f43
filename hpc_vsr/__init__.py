"""High-resolution video from low-resolution video, on SLURM clusters and on a laptop.

Every stage is ``python -m hpc_vsr.STAGE`` and ``hpc-vsr STAGE``; see ``hpc-vsr --help``. From Python:

    import hpc_vsr
    sr = hpc_vsr.load("runs/delta").upscale(frames)        # (T, h, w) to (T, 2h, 2w)
"""

from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
    from hpc_vsr.upscaler import load

__all__ = ["load"]
__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "load":  # torch is imported when it is wanted
        from hpc_vsr.upscaler import load

        return load
    raise AttributeError(f"module 'hpc_vsr' has no attribute {name!r}")
