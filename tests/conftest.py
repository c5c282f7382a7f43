"""Small real inputs, made once a session, and the commands as a user types them."""

from __future__ import annotations

import os

# Several workers, each with threads for every core, would wait for each other. Torch reads this as it is loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import slurm_cluster
import torch
from slurm_clone import Clone
from stages import run_stage

from hpc_vsr.runs.checkpoints import Checkpoints
from hpc_vsr.runs.state import load_checkpoint
from hpc_vsr.system.files import SEAL, write_sealed

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benchmarks"))

from patterns import moving_pattern  # noqa: E402

SAMPLE = ROOT / "preprocess" / "sample" / "diamond.mp4"


def pytest_collection_modifyitems(items):
    """Leave out, by name, what this machine cannot run; with HPC_VSR_REQUIRE=mpi,browser,slurm that is a failure."""
    missing = {"mpi": None if find_mpiexec() else "no mpiexec that mpi4py can use",
               "browser": None if find_browser() else "no chromium", "slurm": slurm_cluster.missing(),
               "gpu": None if torch.cuda.is_available() else "no GPU"}
    required = [name for name in os.environ.get("HPC_VSR_REQUIRE", "").split(",") if name]
    for name in required:
        if missing[name]:
            pytest.exit(f"{name} tests are required here but there is {missing[name]}", returncode=3)
    # the tests that mostly wait, for SLURM, begin first; other workers do the other files meanwhile
    items.sort(key=lambda item: item.get_closest_marker("slurm") is None)
    for item in items:
        for name, reason in missing.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=f"{reason}: {name} tests are left out"))


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

    return Groups(config, log)


def find_mpiexec() -> str | None:
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec")


def find_browser() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def portable() -> dict[str, str]:
    """Environment variables that limit torch and OpenCV to what a processor without AVX-512 and bf16 has."""
    lines = Path(__file__).with_name("portable.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


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


def rewrite(path: Path, content: dict) -> None:
    """Other content for a file with a checksum, as the program itself would write it."""
    write_sealed(path, {key: value for key, value in content.items() if key != SEAL})


def write_video(path: Path, frames: np.ndarray, codec="libx264", pixel_format="yuv420p", gop=12, b_frames=2,
                colour_range=None, matrix=None) -> Path:
    """Encode (T, H, W, 3) uint8 frames."""
    import av  # a machine without it still runs the tests that decode nothing

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixel_format
        stream.time_base = Fraction(1, 25)
        if codec == "libx264":
            stream.options = {"g": str(gop), "bf": str(b_frames), "crf": "18", "threads": "1"}
        for index, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame = frame.reformat(format=pixel_format, dst_color_range=colour_range, dst_colorspace=matrix)
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


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


TINY = ("--model.n_2d", 1, "--model.n_3d", 1, "--model.skip", "wiener", "--train.steps", 6, "--train.batch_size", 4,
        "--train.patch_size", 12, "--train.validate_every", 3, "--train.checkpoint_every", 2, "--train.log_every", 1,
        "--train.warmup_steps", 2, "--train.device", "cpu", "--train.precision", "fp32", "--evaluate.precision", "fp32")


def train_tiny(dataset: Path, out: Path, *more, **options) -> subprocess.CompletedProcess:
    """A training of six steps."""
    return run_stage("train", "--data", dataset, "--out", out, *TINY, *more, **options)


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint(Checkpoints(run / "checkpoints").newest())
    return {**{f"network.{name}": value for name, value in state["network"].items()},
            **{f"average.{name}": value for name, value in state["weights"].items()}}


def assert_equal_to_the_bit(run: Path, other: Path) -> None:
    ours, theirs = final_weights(run), final_weights(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def trained(tmp_path_factory, dataset) -> Path:
    """A finished and evaluated run on `dataset`."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    for done in (train_tiny(dataset, out), run_stage("evaluate", "--run", out)):
        assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module", params=["accounting", "no-accounting"])
def cluster(request) -> Iterator[slurm_cluster.Cluster]:
    with slurm_cluster.running_cluster(accounting=request.param == "accounting") as started:
        yield started


@pytest.fixture
def clone(cluster, dataset, tmp_path) -> Clone:
    """A folder as a user has it after cloning."""
    return Clone(tmp_path, cluster, dataset)
