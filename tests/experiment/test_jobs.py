"""Every run that a job file names fits its data and computes; each kind of run is trained for two steps."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch
import xarray
from patterns import moving_pattern
from repository import ROOT
from stages import run_stage

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.splits import WINDOW
from hpc_vsr.experiment.checks import check_fit
from hpc_vsr.experiment.jobfile import add_job_file, read_job
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import DataTerms, load_trained
from hpc_vsr.system.parser import Parser
from hpc_vsr.system.signals import StopFlag
from hpc_vsr.training.objective import Objective
from hpc_vsr.training.train import train

JOBS = sorted(ROOT.glob("jobs/*.toml"))
PATCH = 10
pytestmark = [pytest.mark.slow, pytest.mark.compute]


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


@functools.cache
def runs_of(path) -> list[Experiment]:
    """The runs of a job file, each cut to two short steps in fp32 on the CPU; what the file says of the rest holds.

    Those that start from another run, which is not here, are left out.
    """
    parser = Parser("test", "")
    add_job_file(parser)
    _, points, _ = read_job(parser, ["--config", str(path), "--out", str(path.with_suffix(""))])
    return [dataclasses.replace(point, train=dataclasses.replace(
        point.train, steps=2, batch_size=2, patch_size=min(point.train.patch_size, PATCH),
        num_frames=min(point.train.num_frames, 10), warmup_steps=min(point.train.warmup_steps, 1),
        first_stage_steps=min(point.train.first_stage_steps, 1), validate_every=0, log_every=1, device="cpu",
        precision="fp32")) for point in points if point.train.from_ is None]


def data_of(experiment: Experiment) -> str:
    return next((name for name in ("4x", "climate") if name in str(experiment.data)), "diamond")


def kind_of(experiment: Experiment) -> str:
    """Return the settings that decide which code a training runs through."""
    model, settings = experiment.model, experiment.train
    marks = {"two stages": settings.first_stage_steps, "whole frames": not settings.patch_size,
             "output range": model.output_range, "some frames": settings.num_frames, settings.loss: True,
             f"skip {model.skip}": True, f"input {model.input}": True}
    return ", ".join([model.name, data_of(experiment), *(name for name, holds in marks.items() if holds)])


KINDS = {kind_of(experiment): experiment for path in JOBS for experiment in runs_of(path)}


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_run_of_a_job_fits_its_data_and_computes(path, datasets):
    for experiment in runs_of(path):
        manifest = read_manifest(datasets[data_of(experiment)])
        check_fit(experiment, manifest, 1)
        network = DataTerms.of(manifest, 1e-3).build(experiment.model)
        side = PATCH + 2 * network.reach
        lr = torch.rand(1, 1, WINDOW, side, side)
        hr = torch.rand(1, 1, *[manifest.scale * (PATCH - 2)] * 2)
        loss = Objective(network, experiment.train.flow_weight)(lr, hr, experiment.train.loss)
        loss.backward()
        gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
        assert torch.isfinite(loss) and all(torch.isfinite(gradient).all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients), experiment


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_trains(kind, datasets, tmp_path):
    experiment = dataclasses.replace(KINDS[kind], data=datasets[data_of(KINDS[kind])], out=tmp_path / "run")
    with StopFlag() as stop:
        train(experiment, stop)
    trained = load_trained(RunFolder(tmp_path / "run"))
    assert trained.step == 2 and trained.settings == experiment.model
