"""The commands as a user types them, in copies of one process that has the program loaded: torch takes seconds."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

from repository import child_environment
from waiting import Patience

FORKED = ("preprocess", "train", "evaluate", "report", "upscale", "export", "launch", "status", "doctor",
          "import_weights", "job")
# What the stages load when they are wanted; torch alone takes seconds.
LOADED = ("data.build", "training.train", "training.plan", "evaluation.evaluate", "evaluation.published",
          "report.write", "upscale.loop", "export.formats", "doctor.runs", "cluster.local")
# What torch and our stages load when they build an optimiser, count operations or tune: two seconds in every process.
LIBRARIES = ("torch._dynamo", "scipy.optimize")

_processes = multiprocessing.get_context("forkserver")  # started anew, so that no test has changed what it holds
_processes.set_forkserver_preload([f"hpc_vsr.{module}" for module in (*FORKED, *LOADED)] + [*LIBRARIES, __name__])


def run_stage(*arguments, launcher=(), cwd=None, environment=None, timeout=300) -> subprocess.CompletedProcess:
    """`python -m hpc_vsr.STAGE ...`; standard output and error as text. With a `launcher` it is typed out."""
    words = [str(word) for word in arguments]
    command, env = command_of(*words, launcher=launcher), {**child_environment(), **(environment or {})}
    if launcher or words[0] not in FORKED:
        return run_patiently(command, timeout, cwd=cwd, env=env)
    with tempfile.TemporaryDirectory() as said:
        output, errors = Path(said, "stdout"), Path(said, "stderr")
        with mock.patch.dict(os.environ, child_environment()):
            forkserver.ensure_running()
        process = _processes.Process(target=_run, args=(words, cwd or Path.cwd(), env, output, errors))
        process.start()
        patience = Patience()
        while process.is_alive() and patience.look() < timeout:
            process.join(1)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout, output.read_text(), errors.read_text())
        return subprocess.CompletedProcess(command, process.exitcode, output.read_text(), errors.read_text())


def command_of(*arguments, launcher=()) -> list[str]:
    """Return the words of `python -m hpc_vsr.STAGE ...`."""
    stage, *words = map(str, arguments)
    return [*launcher, sys.executable, "-m", f"hpc_vsr.{stage}", *words]


def start_stage(*arguments, cwd=None) -> subprocess.Popen:
    """Start a stage in a session of its own, as at a terminal, with its standard error as text to read."""
    return subprocess.Popen(command_of(*arguments), cwd=cwd, env=child_environment(), stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True, start_new_session=True)


def run_code(code: str, *arguments, launcher=(), cwd=None, timeout=300) -> subprocess.CompletedProcess:
    """Run a program of a test in a process of its own; standard output and error as text."""
    return run_patiently([*launcher, sys.executable, "-c", code, *map(str, arguments)], timeout, cwd=cwd,
                         env=child_environment())


def run_patiently(command: Sequence[str], timeout: float, **options) -> subprocess.CompletedProcess:
    """Do what `subprocess.run` does with text, with a timeout that does not count while the machine stands still."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        patience = Patience()
        while True:
            try:
                output, errors = process.communicate(timeout=1)
                return subprocess.CompletedProcess(command, process.returncode, output, errors)
            except subprocess.TimeoutExpired:
                if patience.look() > timeout:
                    process.kill()
                    raise


def torchrun(num_ranks: int) -> tuple[str, ...]:
    """A launcher for `run_stage`."""
    return (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}",
            "--no-python")


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """Exit status 2 and one line of error that has these words, no traceback."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert len(errors) == 1 and "Traceback" not in done.stderr, done.stderr
    for word in words:
        assert word in errors[0], errors[0]


def _run(words: list[str], cwd: Path, env: dict[str, str], output: Path, errors: Path) -> None:
    """Do in this copy what the interpreter does for `-m`."""
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
