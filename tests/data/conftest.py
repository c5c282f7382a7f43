"""Recordings of one experiment, and the data set of them all."""

from __future__ import annotations

import pytest
from patterns import moving_pattern
from stages import run_stage
from videos import write_video

RECORDINGS = {"run1": (40, 48, 64), "run2": (30, 40, 56), "run10": (25, 48, 64), "run11": (20, 64, 48)}


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """Videos of different lengths and sizes."""
    folder = tmp_path_factory.mktemp("recordings")
    for number, (name, (frames, height, width)) in enumerate(RECORDINGS.items()):
        write_video(folder / f"{name}.mp4", moving_pattern(frames + number, height, width)[number:])
    return folder


@pytest.fixture(scope="session")
def collection(tmp_path_factory, recordings):
    """The data set of `recordings`, made by the command."""
    folder = tmp_path_factory.mktemp("data") / "runs"
    done = run_stage("preprocess", "--video", recordings / "*.mp4", "--shards", 4, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder
