"""`python -m hpc_vsr.signals ARGS...` runs `python ARGS...` with SLURM's signals blocked until it can handle them."""

import os
import sys

from hpc_vsr.system.signals import hold_signals

if __name__ == "__main__":
    hold_signals()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])  # the new program inherits the blocked signals
