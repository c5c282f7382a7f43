"""Real MPI ranks: the same bytes for any number of them, and a job that ends at once when one fails."""

from __future__ import annotations

import builtins
import os
import time

import cv2
import pytest
from files import contents
from machine import find_mpiexec
from patterns import moving_pattern
from stages import assert_refused, run_code, run_stage
from videos import write_video

from hpc_vsr.media.video_source import open_video
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.mpi import SingleProcess, connect


@pytest.mark.mpi
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
def test_the_bytes_do_not_depend_on_the_number_of_ranks(clip, dataset, tmp_path, num_ranks):
    done = run_stage("preprocess", "--video", clip, "--shards", 5, "--out", tmp_path / "d",
                     launcher=(find_mpiexec(), "-n", str(num_ranks)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("complete") == 1
    assert contents(tmp_path / "d") == contents(dataset)


@pytest.mark.mpi
def test_ranks_share_what_is_missing(clip, dataset, tmp_path):
    first = run_stage("preprocess", "--video", clip, "--shards", 5, "--out", tmp_path / "d")
    assert first.returncode == 0, first.stderr
    for name in ("train-00001-of-00003.h5", "test-00000-of-00001.h5"):
        (tmp_path / "d" / name).unlink()
    again = run_stage("preprocess", "--video", clip, "--shards", 5, "--out", tmp_path / "d",
                      launcher=(find_mpiexec(), "-n", "2"))
    assert again.returncode == 0 and "3 finished before" in again.stderr, again.stderr
    assert contents(tmp_path / "d") == contents(dataset)


@pytest.mark.mpi
def test_a_mistake_that_all_ranks_see_is_told_once(tmp_path):
    done = run_stage("preprocess", "--video", tmp_path / "none.mp4", launcher=(find_mpiexec(), "-n", "3"))
    assert_refused(done, "none.mp4", "not found")


@pytest.mark.mpi
def test_a_rank_that_fails_takes_the_job_down_at_once_with_its_reason(tmp_path):
    """The last image is broken, so that only the last rank meets it."""
    for index, rgb in enumerate(moving_pattern(40, 48, 64)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), rgb)
    (tmp_path / "39.png").write_bytes((tmp_path / "39.png").read_bytes()[:200])
    started = time.monotonic()
    done = run_stage("preprocess", "--frames", tmp_path, "--out", tmp_path / "d", launcher=(find_mpiexec(), "-n", "3"))
    assert time.monotonic() - started < 60  # it would wait for ever
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "error: rank 2: " in done.stderr and "39.png: cannot be read as an image" in done.stderr
    assert not (tmp_path / "d" / "dataset.json").exists()


@pytest.mark.mpi
def test_a_crash_while_planning_does_not_leave_the_others_waiting(tmp_path):
    """The main rank's crash is not an InputError: it must still end the job."""
    code = ("import sys, hpc_vsr.preprocess as p, hpc_vsr.data.build as b; b.plan_dataset = lambda *_: 1 / 0;"
            "sys.exit(p.exit_status(p.main, ['--video', 'x.mp4']))")
    done = run_code(code, launcher=(find_mpiexec(), "-n", "2"), timeout=300)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


@pytest.mark.mpi
def test_an_interrupted_rank_does_not_leave_the_others_waiting(clip, tmp_path):
    """Ctrl-C reaches the ranks one by one; one that left by itself would wait for the others in MPI_Finalize."""
    code = ("import os, sys, hpc_vsr.preprocess as p, hpc_vsr.data.build as b\n"
            "def interrupted(*_):\n    raise KeyboardInterrupt\n"
            "if os.environ['PMI_RANK'] == '1':\n    b.read_entry = interrupted\n"
            "sys.exit(p.exit_status(p.main, sys.argv[1:]))")
    done = run_code(code, "--video", clip, "--out", tmp_path / "d", launcher=(find_mpiexec(), "-n", "3"), timeout=300)
    assert done.returncode == 1 and "rank 1: interrupted" in done.stderr


@pytest.mark.mpi
def test_two_ranks_that_cannot_see_each_other_are_refused(clip, tmp_path):
    """Plain srun does this with an MPICH: each process is rank 0 of 1, and both would write the same shards."""
    done = run_stage("preprocess", "--video", clip, "--out", tmp_path / "d",
                     environment={"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"})
    assert_refused(done, "started 2 ranks (SLURM_STEP_NUM_TASKS=2)", "MPI sees 1", "--mpi=pmi2", "--mpi=pmix")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("environment", [{}, {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, {"SLURM_STEP_NUM_TASKS": "1"}])
def test_without_a_launcher_mpi_is_not_touched(environment):
    assert isinstance(connect(environment), SingleProcess)


def test_a_launcher_without_mpi4py_is_refused(monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "mpi4py":
            raise RuntimeError("cannot load MPI library\nlibmpi.so.12: not found")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match=r"ranks were started, but mpi4py cannot be used \(cannot load MPI library\)"):
        connect({"PMI_SIZE": "4"})


def test_a_rank_decodes_only_from_the_key_frame_before_its_range(tmp_path):
    path = write_video(tmp_path / "long.mp4", moving_pattern(120, 48, 64), gop=10)
    source = open_video(path)
    decoded = []
    real = source._next_frame
    source._next_frame = lambda frames, index: (lambda frame: decoded.append(frame.pts) or frame)(real(frames, index))
    list(source.read(60, 100))
    assert 40 <= len(decoded) <= 50, f"{len(decoded)} frames were decoded for 40"


def test_environment_is_clean():
    """The tests themselves must not run under a launcher, which their children would inherit."""
    assert not {"PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"} & os.environ.keys()
