"""Let a trained network predict how far off it is: train a small head that gives the error of each pixel.

The head is written to the run folder, and the network's weights stay as they are. Afterwards `hpc_vsr.upscale
--error-map` writes the predicted error of what it upscales, and the next evaluation measures how well it is predicted,
which the report shows. It takes some minutes on a laptop.

    python -m hpc_vsr.calibrate --run runs/compact
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system.config import Device
from hpc_vsr.system.errors import InputError, exit_status
from hpc_vsr.system.parser import Parser


def build_parser() -> Parser:
    parser = Parser("calibrate", __doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder, runs/NAME")
    parser.add_argument("--data", type=Path | None, default=None,
                        help="data set that the network was trained on; as in the run's config.json if not given")
    parser.add_argument("--steps", type=int, default=1000, help="optimiser steps")
    parser.add_argument("--device", type=Device, default="auto", help="auto, cpu or cuda")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    _, arguments = build_parser().parse(argv)
    run = RunFolder(arguments.run)
    data = run.find_data(arguments.data)
    if arguments.steps < 1:
        raise InputError(f"--steps: must be at least 1, found {arguments.steps}")
    # imported late, because torch takes seconds that --help and a mistyped option need not wait
    from hpc_vsr.training.error_head import calibrate

    print(calibrate(run, read_manifest(data), arguments.steps, arguments.device))


if __name__ == "__main__":
    sys.exit(exit_status(main))
