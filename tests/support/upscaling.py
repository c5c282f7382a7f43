"""The stage `upscale` in this process, which has torch already."""

from __future__ import annotations

import contextlib
import io
import subprocess
from pathlib import Path

from hpc_vsr.system.errors import exit_status
from hpc_vsr.upscale.__main__ import main


def upscale(run: Path, source: Path, target: Path, *more) -> subprocess.CompletedProcess:
    """Status and text as the command would give them; in fp32."""
    arguments = ["--run", run, "--input", source, "--output", target, "--precision", "fp32", *more]
    told, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(errors):
        status = exit_status(main, [str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, status, told.getvalue(), errors.getvalue())
