"""Reads an experiment from a command line and a job file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.parser import Parser


def read_experiment(parser: Parser, argv: Sequence[str] | None) -> tuple[Experiment, Any]:
    """Return the experiment of a command line and all other arguments.

    If no run folder is given, it is named after the job file.
    """
    experiment, arguments = parser.parse(argv)
    if experiment.out is None:
        if arguments.config is None:
            raise InputError("--out is missing: name the run folder, such as --out runs/delta")
        experiment = dataclasses.replace(experiment, out=Path("runs") / arguments.config.stem)
    return experiment, arguments
