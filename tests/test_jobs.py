"""Every run that a job file names can be trained: a few steps of each on small data, with its own settings."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import xarray
from conftest import ROOT, moving_pattern
from stages import run_stage

from hpc_vsr.config import Parser
from hpc_vsr.jobfile import JobFile
from hpc_vsr.runs import RunFolder, load_trained
from hpc_vsr.signals import StopFlag
from hpc_vsr.sweep import expand, read_sweep
from hpc_vsr.train import train

JOBS = sorted(ROOT.glob("jobs/*.toml"))


@pytest.fixture(scope="module")
def datasets(tmp_path_factory, clip, dataset):
    """A data set for each kind of job: a clip for 2 and for 4 times, and a field."""
    folder = tmp_path_factory.mktemp("data")
    field = xarray.DataArray(moving_pattern(30, 48, 64)[..., 0].astype(np.float32), dims=("time", "lat", "lon"))
    xarray.Dataset({"vorticity": field}).to_netcdf(folder / "climate.nc")
    for name, source in (("4x", ("--video", clip, "--degradation.scale", 4)),
                         ("climate", ("--field", folder / "climate.nc", "--variable", "vorticity"))):
        done = run_stage("preprocess", *source, "--shards", 3, "--out", folder / name)
        assert done.returncode == 0, done.stderr
    return {"4x": folder / "4x", "climate": folder / "climate", "diamond": dataset}


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_run_of_a_job_trains(path, datasets, tmp_path):
    parser = Parser("test", "")
    parser.add_settings(JobFile, "--config", also=("sweep",))
    settings, _ = parser.parse(["--config", str(path)])
    kind = "4x" if "4x" in str(settings.data) else "climate" if "climate" in str(settings.data) else "diamond"
    named = dataclasses.replace(settings.experiment, out=tmp_path)
    for number, experiment in enumerate(expand(named, read_sweep(path), str(path))):
        short = dataclasses.replace(
            experiment.train, steps=2, batch_size=2, patch_size=min(experiment.train.patch_size, 10),
            num_frames=min(experiment.train.num_frames, 10), warmup_steps=min(experiment.train.warmup_steps, 1),
            first_stage_steps=min(experiment.train.first_stage_steps, 1), validate_every=0, log_every=1, device="cpu",
            precision=experiment.train.precision if experiment.train.patch_size else "fp32")  # fp16 frames take minutes
        run = tmp_path / f"run{number}"
        with StopFlag() as stop:
            train(dataclasses.replace(experiment, data=datasets[kind], out=run, train=short), stop)
        trained = load_trained(RunFolder(run))
        assert trained.step == 2 and trained.settings == experiment.model
