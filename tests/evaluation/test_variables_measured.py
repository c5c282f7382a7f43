"""Several variables are trained on and measured: each on its own range and in its own units."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import xarray
from flows import train_on_flow, velocity_and_pressure, write_flow
from stages import assert_refused, run_stage
from trainings import assert_equal_to_the_bit, records, train_tiny

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.samples import Split
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import load_trained
from hpc_vsr.system.files import read_sealed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    field = write_flow(folder / "flow.nc", *velocity_and_pressure())
    return {variable: train_on_flow(folder, field, variable) for variable in ("u,p", "u", "p")}


def rows_of(run, **wanted) -> list[dict]:
    rows = read_sealed(run / "metrics-test.json", "")["rows"]
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


@pytest.mark.parametrize("variable", ["u", "p"])
def test_the_baselines_of_each_variable_are_those_of_the_variable_alone(measured, variable):
    for method in ("bicubic", "wiener"):
        own, = rows_of(measured[variable][1], method=method, profile="field")
        row, = rows_of(measured["u,p"][1], method=method, profile="field", variable=variable)
        assert row["units"] == {"u": "m s-1", "p": "Pa"}[variable] and "variable" not in own
        for key in ("rmse", "bias", "psnr", "ssim", "q99_error", "lr_consistency", "log_spectral_distance",
                    "band_small"):
            assert row[key] == pytest.approx(own[key], rel=1e-3, abs=3e-6), key  # the filters have other lengths
    noises = read_sealed(measured["u,p"][1] / "metrics-test.json", "")["wiener_noise"]
    alone = [read_sealed(measured[name][1] / "metrics-test.json", "")["wiener_noise"] for name in ("u", "p")]
    assert noises == pytest.approx(alone, rel=1e-6)


def test_the_figures_of_a_network_follow_from_its_pictures(measured):
    data, run, _ = measured["u,p"]
    pictures, known = np.load(run / "pictures-test.npz"), read_manifest(data)
    errors = (pictures["run_u,p"] - pictures["hr"]).astype(np.float64)
    train = velocity_and_pressure()[0][:21], velocity_and_pressure()[1][:21]
    shares = []
    for channel, name in enumerate(known.channels):
        row, = rows_of(run, method="run_u,p", profile="field", variable=name)
        assert row["frames"] == len(errors)
        extent = np.nanmax(train[channel]) - np.nanmin(train[channel])
        each = [np.nanmean(error[channel] ** 2) for error in errors]
        assert row["rmse"] == pytest.approx(np.sqrt(np.mean(each)), rel=1e-5)
        assert row["psnr"] == pytest.approx(np.mean(10 * np.log10(extent**2 / np.array(each))), abs=0.01)
        shares.append([np.nanmean(error[channel, 2:-2, 2:-2] ** 2) / extent**2 for error in errors])
    row, = rows_of(run, method="run_u,p", profile="paper")
    assert "variable" not in row and row["mse"] == pytest.approx(np.mean(shares), rel=1e-3)


def test_the_table_names_the_variables(measured):
    lines = measured["u,p"][2].splitlines()
    assert lines[0].split()[-2:] == ["variable", "RMSE"]
    assert [line.split()[7:] for line in lines if line.startswith("wiener   field")] == [
        ["u", f"{rows_of(measured['u,p'][1], method='wiener', variable='u')[0]['rmse']:.4g}", "m", "s-1"],
        ["p", f"{rows_of(measured['u,p'][1], method='wiener', variable='p')[0]['rmse']:.4g}", "Pa"]]


def test_the_units_of_a_variable_change_nothing_of_what_is_learned(tmp_path):
    """Its range is 1024 times as large, a power of two, so that even the bits are the same."""
    u, p = velocity_and_pressure()
    runs = []
    for number, factor in enumerate((1, 1024)):
        path = tmp_path / f"{number}.nc"
        values = {"a": u, "b": factor * 100 * (p - p[0, 20, 5])}
        xarray.Dataset({name: (("time", "y", "x"), one.astype(np.float32)) for name, one in values.items()}
                       ).to_netcdf(path)
        data, run = tmp_path / f"data_{number}", tmp_path / f"run_{number}"
        done = run_stage("preprocess", "--field", path, "--variable", "a,b", "--shards", 3, "--out", data)
        assert done.returncode == 0, done.stderr
        done = train_tiny(data, run)
        assert done.returncode == 0, done.stderr
        runs.append(run)
    assert_equal_to_the_bit(*runs)
    assert [record.get("loss") for record in records(runs[0])] == [record.get("loss") for record in records(runs[1])]


def test_the_checkpoint_names_the_variables_and_the_filter_has_the_noise_of_each(measured):
    trained = load_trained(RunFolder(measured["u,p"][1]))
    assert (trained.terms.variables, trained.terms.units) == (["u", "p"], ["m s-1", "Pa"])
    own = [load_trained(RunFolder(measured[name][1])) for name in ("u", "p")]
    assert trained.terms.noise == pytest.approx([one.terms.noise for one in own], rel=1e-6)
    window = Split(read_manifest(measured["u,p"][0]), "test").window(26)[None]
    together = trained.network.skip(window[:, :, 2])
    for channel, one in enumerate(own):
        alone = one.network.skip(window[:, channel : channel + 1, 2])
        np.testing.assert_allclose(together[:, channel : channel + 1], alone, atol=1e-5)


def test_a_run_is_not_measured_on_other_variables(measured, tmp_path):
    (data, run, _), (alone, other, _) = measured["u,p"], measured["u"]
    turned = tmp_path / "turned"
    done = run_stage("preprocess", "--field", data.parent / "flow.nc", "--variable", "p,u", "--shards", 3, "--out",
                     turned)
    assert done.returncode == 0, done.stderr
    copies = [tmp_path / "a", tmp_path / "b"]
    for one, copy in zip((run, other), copies, strict=True):
        shutil.copytree(one, copy)
    for one, where, words in ((copies[0], turned, "was trained on u, p, in this order, and"),
                              (copies[0], alone, "was trained on u, p, and"),
                              (copies[1], data, "was trained on one variable, and")):
        assert_refused(run_stage("evaluate", "--run", one, "--data", where), words)
