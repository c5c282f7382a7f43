"""Fixtures for all tests: small real inputs, made once a session. The tests that this machine cannot run."""

from __future__ import annotations

import os

# Several workers, each with threads for every core, would wait for each other. Torch reads this as it is loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import re
import signal
from pathlib import Path

import pytest
import slurm_cluster
import torch
from machine import find_browser, find_mpiexec
from patterns import moving_pattern
from pretended_gpus import OF_JOBS, pretend_gpus
from stages import run_stage
from time_limit import VARIABLE, TimeLimit
from trainings import train_tiny
from videos import write_video

from hpc_vsr.system.files import read_sealed


def _order_of_files(items) -> dict[Path, int]:
    """Return the place of each file of tests.

    Those that mostly wait, for SLURM, begin early, but at most two at a time: the other workers compute meanwhile.
    """
    files = list(dict.fromkeys(item.path for item in items))
    waiting = list(dict.fromkeys(item.path for item in items if item.get_closest_marker("slurm")))
    ordered = [path for path in files if path not in waiting]
    for number, path in enumerate(waiting):
        ordered.insert(max(0, number - 1) * len(files) // (len(waiting) + 1) + number, path)
    return {path: place for place, path in enumerate(ordered)}


def pytest_configure(config):
    # a background job of a shell ignores Ctrl-C, and so would what the tests start
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get(VARIABLE) and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(TimeLimit(float(os.environ[VARIABLE])))


def pytest_collection_modifyitems(items):
    """Leave out, by name, what this machine cannot run; with HPC_VSR_REQUIRE=mpi,browser,slurm that is a failure."""
    missing = {"mpi": None if find_mpiexec() else "no mpiexec that mpi4py can use",
               "browser": None if find_browser() else "no chromium", "slurm": slurm_cluster.missing(),
               "gpu": None if torch.cuda.is_available() else "no GPU"}
    required = [name for name in os.environ.get("HPC_VSR_REQUIRE", "").split(",") if name]
    for name in required:
        if missing[name]:
            pytest.exit(f"{name} tests are required here but there is {missing[name]}", returncode=3)
    order = _order_of_files(items)
    items.sort(key=lambda item: order[item.path])
    for item in items:
        for name, reason in missing.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=f"{reason}: {name} tests are left out"))


def pytest_runtest_logreport(report):
    """Tell a failure when it happens: a run that is cut off has no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nFAILED {report.nodeid} ({report.when}, {report.duration:.0f} s)\n{report.longreprtext}", flush=True)


def pytest_ignore_collect(collection_path, config):
    """With `-m gpu` the other files are not even imported: a bare GPU machine lacks what they want."""
    only_gpu = config.option.markexpr == "gpu" and collection_path.name.startswith("test_")
    return True if only_gpu and collection_path.name != "test_gpu.py" else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file is tested by one worker; those on SLURM by one with and by one without accounting, on a cluster each.

    The families of the campaign of faults share nothing and go wherever a worker is free.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            cluster = re.search(r"\[.*?((?:no-)?accounting)\b", nodeid)
            return cluster.group(1) if cluster else nodeid if "test_faults" in nodeid else nodeid.partition("::")[0]

        def remove_node(self, node):
            """Count the test that took its worker with it as done: xdist would start it again and again."""
            unfinished = ((unit, test) for unit in self.assigned_work[node].values()
                          for test, finished in unit.items() if not finished)
            unit, lost = next(unfinished, (None, None))
            if unit:
                unit[lost] = True
            super().remove_node(node)
            return lost

    return Groups(config, log)


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """40 frames of 64x48 with B-frames and key frames every 12."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_pattern(40, 48, 64))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory, clip) -> Path:
    """The data set of `clip`, made by the command."""
    folder = tmp_path_factory.mktemp("data") / "clip"
    done = run_stage("preprocess", "--video", clip, "--shards", 5, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory, dataset) -> Path:
    """A finished and evaluated run on `dataset`."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    for done in (train_tiny(dataset, out), run_stage("evaluate", "--run", out)):
        assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def evaluation(trained) -> dict:
    return read_sealed(trained / "metrics-test.json", "")


@pytest.fixture
def machine(monkeypatch):
    """Gives a machine a number of GPUs and an environment."""

    def make(count: int, environment: dict[str, str] | None = None, **facts) -> None:
        for name in OF_JOBS:
            monkeypatch.delenv(name, raising=False)
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        pretend_gpus(monkeypatch, count, **facts)
    return make
