"""The commands as a user types them, in copies of one process that has the program loaded: torch takes seconds."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
FORKED = ("preprocess", "train", "evaluate", "report", "upscale", "export", "launch", "status", "doctor",
          "import_weights", "job")
# What the stages load when they are wanted; torch alone takes seconds.
LOADED = ("training.train", "training.plan", "evaluation.evaluate", "evaluation.published", "report.write",
          "upscale.loop", "export.formats", "doctor.runs", "cluster.local")
OWN = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}  # one thread: several processes share the cores of a machine

_processes = multiprocessing.get_context("forkserver")  # started anew, so that no test has changed what it holds
_processes.set_forkserver_preload([f"hpc_vsr.{module}" for module in (*FORKED, *LOADED)] + [__name__])


def run_stage(*arguments, launcher=(), cwd=None, environment=None, timeout=300) -> subprocess.CompletedProcess:
    """`python -m hpc_vsr.STAGE ...`; standard output and error as text. With a `launcher` it is typed out."""
    words = [str(word) for word in arguments]
    command = [*launcher, sys.executable, "-m", f"hpc_vsr.{words[0]}", *words[1:]]
    env = {**os.environ, **OWN, **(environment or {})}
    if launcher or words[0] not in FORKED:
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    with tempfile.TemporaryDirectory() as said:
        output, errors = Path(said, "stdout"), Path(said, "stderr")
        with mock.patch.dict(os.environ, OWN):
            forkserver.ensure_running()
        process = _processes.Process(target=_run, args=(words, cwd or Path.cwd(), env, output, errors))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout, output.read_text(), errors.read_text())
        return subprocess.CompletedProcess(command, process.exitcode, output.read_text(), errors.read_text())


def _run(words: list[str], cwd: Path, env: dict[str, str], output: Path, errors: Path) -> None:
    """What the interpreter does for `-m`, in this copy."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for descriptor, path in ((1, output), (2, errors)):
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, descriptor)
        os.close(target)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    module = f"hpc_vsr.{words[0]}"
    sys.modules.pop(module)  # it is run as __main__
    sys.argv = [module, *words[1:]]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
