"""The kind of data that a checkpoint records: what a field's only variable was, and that another one is told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from stages import run_stage

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.runs.trained import DataTerms
from hpc_vsr.system.config import as_dict, from_dict
from hpc_vsr.training.start import compare_terms
from hpc_vsr.upscale.checks import warn_of_units


@pytest.fixture(scope="module")
def terms(tmp_path_factory):
    xarray = pytest.importorskip("xarray")
    folder = tmp_path_factory.mktemp("field")
    values = np.random.default_rng(0).normal(280, 5, (40, 24, 32)).astype(np.float32)
    xarray.DataArray(values, dims=["time", "y", "x"], name="t2m", attrs={"units": "K"}).to_netcdf(folder / "in.nc")
    done = run_stage("preprocess", "--field", folder / "in.nc", "--variable", "t2m", "--shards", 3, "--out",
                     folder / "data", "--degradation.sigma", 1)
    assert done.returncode == 0, done.stderr
    return DataTerms.of(read_manifest(folder / "data"), 1e-3)


def test_the_variable_and_its_unit_are_recorded(terms):
    assert (terms.names, terms.all_units) == (["t2m"], ["K"])
    assert from_dict(DataTerms, as_dict(terms), "") == terms


@pytest.mark.parametrize("variable, unit, told", [
    ("t2m", "K", []), ("t2m", "degC", ["t2m is in degC", "trained on K"]),
    ("sst", "K", ["trained on t2m, and this is sst"])])
def test_another_variable_or_unit_is_told(terms, variable, unit, told):
    upscaler = SimpleNamespace(trained=SimpleNamespace(terms=terms), name="runs/t")
    lines = list(warn_of_units(upscaler, [variable], [unit]))
    assert len(lines) == bool(told) and all(word in lines[0] for word in told)


def test_of_a_checkpoint_that_does_not_say_nothing_is_told(terms):
    values = {name: value for name, value in as_dict(terms).items() if name not in ("variable", "unit")}
    earlier = from_dict(DataTerms, values, "")
    upscaler = SimpleNamespace(trained=SimpleNamespace(terms=earlier), name="runs/t")
    assert earlier.names == [] and not list(warn_of_units(upscaler, ["sst"], ["degC"]))


def test_fine_tuning_on_another_variable_is_told(terms):
    other = from_dict(DataTerms, {**as_dict(terms), "variable": "sst"}, "")
    trained = SimpleNamespace(terms=terms, where="runs/t")
    settings = SimpleNamespace(uses_wiener=True)
    line, = compare_terms(trained, other, settings)
    assert "the data are sst" in line and "trained on t2m" in line
    values = {name: value for name, value in as_dict(terms).items() if name not in ("variable", "unit")}
    for same in (terms, from_dict(DataTerms, values, "")):  # the second is of an earlier version, which does not say
        assert compare_terms(trained, same, settings) == []
