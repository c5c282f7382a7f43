"""Turns low-resolution video into high-resolution video, on SLURM clusters and on a laptop.

Run a stage with ``python -m hpc_vsr.STAGE`` or ``hpc-vsr STAGE``; see ``hpc-vsr --help``. From Python:

    import hpc_vsr
    sr = hpc_vsr.load("runs/delta").upscale(frames)        # (T, h, w) to (T, s h, s w)
"""

from __future__ import annotations

import os
import sys
import typing

# Let torch's threads sleep while they wait for each other. By default they spin, and on a machine with other work a
# step then takes up to thirty times as long (docs/performance.md). torch reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if typing.TYPE_CHECKING:
    from hpc_vsr.upscale.upscaler import load

__all__ = ["load"]
__version__ = "0.1.0"


def _on_import_error(kind: type[BaseException], error: BaseException, trace: typing.Any) -> None:
    """Print one line if a command lacks its libraries, and end with status 2 as for other wrong input."""
    from hpc_vsr.system.errors import missing_library

    line = missing_library(error)
    if line is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)


# The commands import their libraries before they can answer an error. "-m": python -m hpc_vsr.COMMAND is starting.
if sys.argv[:1] == ["-m"] or os.path.basename(sys.argv[0] if sys.argv else "") == "hpc-vsr":  # noqa: PTH119
    sys.excepthook = _on_import_error


def __getattr__(name: str):
    if name == "load":  # torch is imported only when it is needed
        from hpc_vsr.upscale.upscaler import load

        return load
    raise AttributeError(f"module 'hpc_vsr' has no attribute {name!r}")
