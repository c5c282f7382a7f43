"""`python -m hpc_vsr STAGE ...` is `hpc-vsr STAGE ...`."""

import sys

from hpc_vsr.cli import main

sys.exit(main())
