"""`python -m hpc_vsr.signals ARGUMENTS...` is `python ARGUMENTS...`, keeping SLURM's signals until it can answer."""

import os
import sys

from hpc_vsr.system.signals import hold_signals

if __name__ == "__main__":
    hold_signals()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])  # the new program inherits what is held
