"""A field through `upscale`: values, units, gaps, calendar and coordinates stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray
from scipy.io import netcdf_file
from stages import assert_refused, run_stage
from trainings import train_tiny
from upscaling import upscale

from hpc_vsr.media.field_grid import split_bounds, split_cells
from hpc_vsr.media.field_sink import write_field
from hpc_vsr.media.field_source import open_field

NUM_FRAMES, HEIGHT, WIDTH = 24, 24, 32


@pytest.fixture(scope="module")
def field(tmp_path_factory) -> Path:
    """A packed field with a gap, a depth of one level, a 360-day calendar, bounds, and variables beside it."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    values = np.stack([np.sin((columns + index) / 3) * np.cos((rows - index) / 4) for index in range(NUM_FRAMES)])
    values[:, 5:9, 10:13] = np.nan
    lat = 10.0 + np.arange(HEIGHT)
    dataset = xarray.Dataset(
        {"temperature": (("time", "depth", "lat", "lon"), (290 + 5 * values[:, None]).astype(np.float32),
                         {"units": "K", "standard_name": "sea_water_temperature", "grid_mapping": "crs"}),
         "salinity": (("time", "depth", "lat", "lon"), values[:, None].astype(np.float32)),
         "lat_bnds": (("lat", "two"), np.stack([lat - 0.5, lat + 0.5], 1)),
         "crs": ((), 0, {"grid_mapping_name": "latitude_longitude"})},
        {"time": ("time", np.arange(NUM_FRAMES) * 6.0, {"units": "hours since 2000-02-29", "calendar": "360_day"}),
         "depth": ("depth", [0.0], {"units": "m"}),
         "lat": ("lat", lat, {"units": "degrees_north", "bounds": "lat_bnds"}),
         "lon": ("lon", np.linspace(0, 31, WIDTH), {"units": "degrees_east"}),
         "area": (("lat", "lon"), np.ones((HEIGHT, WIDTH)))},
        {"title": "a test", "history": "made"})
    dataset["temperature"].encoding = {"dtype": "int16", "scale_factor": 0.001, "add_offset": 290.0,
                                       "_FillValue": -32768}
    path = tmp_path_factory.mktemp("field") / "field.nc"
    dataset.to_netcdf(path, unlimited_dims=["time"])
    return path


@pytest.fixture(scope="module")
def network(field, tmp_path_factory) -> Path:
    """A tiny network trained on it."""
    folder = tmp_path_factory.mktemp("network")
    done = run_stage("preprocess", "--field", field, "--variable", "temperature", "--shards", 3, "--out",
                     folder / "data")
    assert done.returncode == 0, done.stderr
    done = train_tiny(folder / "data", folder / "run", "--train.patch_size", 10, "--train.validate_every", 0)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="module")
def enlarged(network, field, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("out") / "out.nc"
    done = upscale(network, field, target, "--variable", "temperature")
    assert done.returncode == 0, done.stderr
    assert "without salinity" in done.stderr
    return target


def test_values_stay_in_their_units_and_gaps_are_gaps(field, enlarged):
    with xarray.open_dataset(field) as before, xarray.open_dataset(enlarged) as after:
        one, other = before["temperature"].values[:, 0], after["temperature"].values[:, 0]
        assert after["temperature"].shape == (NUM_FRAMES, 1, 2 * HEIGHT, 2 * WIDTH)
        assert np.array_equal(np.isnan(other), np.isnan(one).repeat(2, 1).repeat(2, 2))
        reduced = other.reshape(NUM_FRAMES, HEIGHT, 2, WIDTH, 2).mean((2, 4))
        inside = ~np.isnan(one)
        assert np.corrcoef(one[inside], reduced[inside])[0, 1] > 0.98
        assert abs(one[inside].mean() - reduced[inside].mean()) < 0.1


def test_what_describes_the_field_stays(field, enlarged):
    with (xarray.open_dataset(field, decode_cf=False) as before,
          xarray.open_dataset(enlarged, decode_cf=False) as after):
        for name in ("time", "depth", "lat", "lon", "crs"):
            assert str(after[name].attrs) == str(before[name].attrs) and after[name].dtype == before[name].dtype, name
        kept = {key: value for key, value in before["temperature"].attrs.items()
                if key not in ("scale_factor", "add_offset", "_FillValue")}
        assert kept.items() <= after["temperature"].attrs.items() and after["temperature"].dtype == np.float32
        assert after["temperature"].dims == before["temperature"].dims
        assert np.array_equal(after["time"], before["time"])
        assert after.attrs["title"] == "a test"
        first, second = after.attrs["history"].splitlines()
        assert "temperature enlarged 2 times by hpc-vsr" in first and second == "made"
        assert after.encoding["unlimited_dims"] == {"time"}


def test_coordinates_are_refined_cell_by_cell(enlarged):
    with xarray.open_dataset(enlarged, decode_times=False) as after:
        np.testing.assert_allclose(after["lat"], 9.75 + np.arange(2 * HEIGHT) / 2)
        np.testing.assert_allclose(after["lat_bnds"][:2], [[9.5, 10.0], [10.0, 10.5]])
        np.testing.assert_allclose(after["lon"][:3], [-0.25, 0.25, 0.75])
        assert after["area"].shape == (2 * HEIGHT, 2 * WIDTH)


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32"])
def test_files_of_different_packing_and_clocks_keep_values_and_times(tmp_path, dtype):
    """Each packed over exactly its own range, which an enlarged frame leaves; each counts hours from its own month."""
    for month, (low, high) in enumerate([(0.0, 100.0), (50.0, 255.0)], 1):
        values = np.linspace(low, high, 3 * 64).reshape(3, 8, 8)
        hours = np.arange(3.0)
        dataset = xarray.Dataset(
            {"t": (("time", "y", "x"), values.astype(dtype if dtype == "uint8" else np.float32), {"units": "K"}),
             "time_bnds": (("time", "two"), np.stack([hours, hours + 1], 1))},
            {"time": ("time", hours, {"units": f"hours since 2000-0{month}-01", "bounds": "time_bnds"}),
             "y": np.arange(8.0), "x": np.arange(8.0)})
        if dtype == "int16":
            dataset["t"].encoding = {"dtype": dtype, "scale_factor": (high - low) / 65533, "_FillValue": -32768,
                                     "add_offset": (high + low) / 2}
        dataset.to_netcdf(tmp_path / f"in_{month}.nc")
    source = open_field(tmp_path / "in_*.nc", "t")

    def enlarged(number: int) -> np.ndarray:
        return next(source.read(number, number + 1))[0][0].repeat(2, 0).repeat(2, 1) * np.float32(1.01) - 1

    write_field(tmp_path / "out.nc", source, range(6), 2, enlarged, "test", "mark")
    with xarray.open_dataset(tmp_path / "out.nc") as after:
        np.testing.assert_array_equal(after["t"], np.stack([enlarged(number) for number in range(6)]))
        days = [f"2000-0{month}-01" for month in (1, 2)]
        expected = [np.datetime64(day) + np.timedelta64(hour, "h") for day in days for hour in range(3)]
        assert np.array_equal(after["time"], expected)
        assert np.array_equal(after["time_bnds"][:, 1], np.array(expected) + np.timedelta64(1, "h"))
    with xarray.open_dataset(tmp_path / "out.nc", decode_cf=False) as after:
        assert after["time"].attrs["units"] == "hours since 2000-01-01"


def test_cells_of_any_width_keep_their_outer_edges():
    np.testing.assert_allclose(split_cells(np.array([0.0, 2.0, 6.0]), 2), [-0.5, 0.5, 1.75, 3.25, 5.0, 7.0])
    thirds = [2 + 2 / 3, 2, 4 / 3, 2 / 3, 0, -2 / 3]
    np.testing.assert_allclose(split_cells(np.array([2.0, 0.0]), 3), thirds, atol=1e-15)
    np.testing.assert_allclose(split_bounds(np.array([[0.0, 3.0], [3.0, 9.0]]), 3)[2:5], [[2, 3], [3, 5], [5, 7]])
    np.testing.assert_allclose(split_bounds(np.array([[4.0, 0.0]]), 4), [[4, 3], [3, 2], [2, 1], [1, 0]])


def test_zarr_and_a_part_hold_the_same(network, field, enlarged, tmp_path):
    target = tmp_path / "out.zarr"
    done = upscale(network, field, target, "--variable", "temperature", "--start", 4, "--stop", 7)
    assert done.returncode == 0, done.stderr
    with xarray.open_zarr(target) as part, xarray.open_dataset(enlarged) as whole:
        np.testing.assert_allclose(part["temperature"], whole["temperature"][4:7], atol=1e-3)
        assert np.array_equal(part["time"], whole["time"][4:7])


def test_back_projection_brings_it_nearer_to_the_input(network, field, enlarged, tmp_path):
    import torch

    from hpc_vsr.models.reduce import Reduce

    target = tmp_path / "out.nc"
    assert upscale(network, field, target, "--variable", "temperature", "--back_projection", 3).returncode == 0
    with xarray.open_dataset(field, decode_times=False) as before:
        lr = before["temperature"].values[12, 0]
    errors = []
    for path in (enlarged, target):
        with xarray.open_dataset(path, decode_times=False) as after:
            sr = np.nan_to_num(after["temperature"].values[12], nan=290.0)
        reduced = Reduce(2, 3.0)(torch.from_numpy(sr)[None].float())[0, 0].numpy()
        errors.append(np.abs(reduced - lr)[:, 20:].mean())  # away from the gap
    assert errors[1] < 0.7 * errors[0]


def test_a_dry_run_tells_the_plan_and_writes_nothing(network, field, tmp_path):
    done = upscale(network, field, tmp_path / "out.nc", "--variable", "temperature", "--dry-run")
    assert done.returncode == 0 and "24 frames of temperature" in done.stdout and not list(tmp_path.iterdir())


def test_the_same_command_again_finds_it_finished(network, field, enlarged, tmp_path):
    before = enlarged.read_bytes()
    done = upscale(network, field, enlarged, "--variable", "temperature")
    assert done.returncode == 0 and "finished before" in done.stderr and enlarged.read_bytes() == before
    (tmp_path / "out.zarr").mkdir()
    for output, more in ((enlarged, ("--stop", 3)), (tmp_path / "out.zarr", ())):
        assert_refused(upscale(network, field, output, "--variable", "temperature", *more), "did not write it")


def test_an_attribute_without_a_name_is_refused(network, field, tmp_path):
    with netcdf_file(tmp_path / "in.nc", "w") as file, xarray.open_dataset(field) as source:
        for name, size in (("time", 8), ("lat", HEIGHT), ("lon", WIDTH)):
            file.createDimension(name, size)
        variable = file.createVariable("t", "f", ("time", "lat", "lon"))
        variable[:] = source["temperature"].values[:8, 0]
        variable._attributes[""] = b"x"
    done = upscale(network, tmp_path / "in.nc", tmp_path / "out.nc", "--variable", "t")
    assert_refused(done, "out.nc: cannot be written with the names and attributes of the input")
    assert [path.name for path in tmp_path.iterdir()] == ["in.nc"]


def test_a_full_disk_is_told(network, field, tmp_path):
    """The NetCDF library does not say why; here a limit of file sizes stands for it."""
    limit = ("prlimit", f"--fsize={30_000}")
    done = run_stage("upscale", "--run", network, "--input", field, "--output", tmp_path / "out.nc", "--variable",
                     "temperature", launcher=limit)
    assert done.returncode == 1 and "on a full disk" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_refused(network, trained, clip, field, tmp_path):
    target = tmp_path / "out.nc"
    for run, source, to, more, words in (
            (network, field, target, ("--variable", "wind"), "has no variable 'wind'"),
            (network, field, target, (), "--variable is missing"),
            (network, field, tmp_path / "out.txt", ("--variable", "temperature"), ".zarr"),
            (network, field, target, ("--variable", "temperature", "--compare", "true"), "does nothing for a field"),
            (network, tmp_path / "none.nc", target, ("--variable", "temperature"), "not found"),
            (trained, field, target, ("--variable", "temperature"), "trained on a video or images"),
            (network, clip, tmp_path / "out.mp4", (), "trained on a field")):
        assert_refused(upscale(run, source, to, *more), words)
    assert not list(tmp_path.iterdir())
