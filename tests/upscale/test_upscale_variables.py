"""Several variables through `upscale`: each is written back in its own units, type and attributes."""

from __future__ import annotations

import weakref

import cv2
import numpy as np
import pytest
import xarray
from field_networks import untrained
from flows import HEIGHT, MEAN, WIDTH, train_on_flow, velocity_and_pressure, write_flow
from stages import assert_refused
from upscaling import upscale

import hpc_vsr
from hpc_vsr.media.field_sink import write_field
from hpc_vsr.media.field_source import open_field
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.system.progress import Progress
from hpc_vsr.upscale.field import FieldUpscaling
from hpc_vsr.upscale.settings import UpscaleSettings


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    return write_flow(tmp_path_factory.mktemp("flow") / "flow.nc", *velocity_and_pressure())


@pytest.fixture(scope="module")
def network(flow, tmp_path_factory):
    return train_on_flow(tmp_path_factory.mktemp("network"), flow, "u,p")[1]


@pytest.fixture(scope="module")
def enlarged(network, flow, tmp_path_factory):
    target = tmp_path_factory.mktemp("out") / "out.nc"
    done = upscale(network, flow, target)  # it takes the variables of its training
    assert done.returncode == 0 and "30 frames of u, p in" in done.stderr, done.stderr
    return target


def bicubic(**terms):
    """A network that gives the bicubic enlargement of each of two variables."""
    terms = {"offset": [-3.0, -0.1], "extent": [6.0, 0.2], **terms}
    return untrained(ModelSettings("compact", skip="bicubic", width=2, blocks=1), channels=2, variables=["u", "p"],
                     units=["m s-1", "Pa"], **terms)


@pytest.mark.parametrize("subtracted", [[0.0, MEAN], [0.0, MEAN - 1.0]])
def test_each_is_enlarged_in_its_own_units(flow, tmp_path, subtracted):
    """Also by a network in whose training another mean was subtracted."""
    upscaler = bicubic(subtracted=subtracted, offset=[-3.0, MEAN - 0.1 - subtracted[1]])
    settings = UpscaleSettings(flow, tmp_path / "out.nc", tmp_path, start=3, stop=7)
    work = FieldUpscaling.plan(settings, upscaler, open_field(flow, "u,p"))
    work.make(range(1), upscaler, Progress(4, "", "frame", shown=False))
    with xarray.open_dataset(tmp_path / "out.nc") as out:
        assert (out["u"].dtype, out["p"].dtype) == (np.float32, np.float64)
        for name, values, mean, tolerance in zip("up", velocity_and_pressure(), (0, MEAN), (2e-6, 2e-7), strict=True):
            missing = np.isnan(values[3:7]).repeat(2, 1).repeat(2, 2)
            assert np.array_equal(np.isnan(out[name].values), missing)
            plain = np.nan_to_num(values[5] - mean)
            expected = mean + cv2.resize(plain, (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_CUBIC)
            far = cv2.dilate(missing[2].astype(np.uint8), np.ones((11, 11))) == 0  # from what was filled
            assert far.mean() > 0.5
            np.testing.assert_allclose(out[name].values[2][far], expected[far], rtol=0, atol=tolerance)


def test_each_keeps_its_attributes_and_its_fill_value(flow, enlarged):
    with xarray.open_dataset(flow, decode_cf=False) as before, xarray.open_dataset(enlarged, decode_cf=False) as after:
        assert set(after.variables) == {"time", "y", "x", "crs", "u", "p"}
        assert {"units": "m s-1", "long_name": "eastward velocity", "grid_mapping": "crs"}.items() <= (
            after["u"].attrs.items())
        assert {"units": "Pa", "standard_name": "surface_air_pressure"}.items() <= after["p"].attrs.items()
        # packed integers become float32 with NaN; doubles stay doubles with their fill value
        assert after["u"].dtype == np.float32 and np.isnan(after["u"].attrs["_FillValue"])
        assert after["p"].dtype == np.float64 and after["p"].attrs["_FillValue"] == -999.0
        assert (after["p"].values == -999.0).sum() == 4 * (before["p"].values == -999.0).sum()
        assert "u, p enlarged 2 times by hpc-vsr" in after.attrs["history"]
        assert np.array_equal(after["time"], before["time"])


def test_it_is_what_python_gives_and_the_order_of_names_does_not_matter(network, flow, enlarged, tmp_path):
    target = tmp_path / "out.zarr"
    assert upscale(network, flow, target, "--variable", "p,u", "--start", 10, "--stop", 13).returncode == 0
    frames = np.stack([next(one)[0][0].astype(np.float64) + (MEAN if name == "p" else 0) for number in range(8, 15)
                       for name in "up" for one in [open_field(flow, name).read(number, number + 1)]])
    made = hpc_vsr.load(network, device="cpu", precision="fp32").upscale(frames.reshape(7, 2, HEIGHT, WIDTH))
    with xarray.open_dataset(enlarged) as whole, xarray.open_zarr(target) as part:
        for channel, name in enumerate("up"):
            np.testing.assert_array_equal(part[name], whole[name][10:13])
            known = ~np.isnan(whole[name].values[11])
            scale = np.nanmax(whole[name]) - np.nanmin(whole[name])
            np.testing.assert_allclose(made[3, channel][known], whole[name].values[11][known], rtol=0,
                                       atol=2e-6 * scale)


def test_back_projection_brings_each_nearer_to_the_input(network, flow, enlarged, tmp_path):
    import torch

    from hpc_vsr.models.reduce import Reduce

    target = tmp_path / "out.nc"
    assert upscale(network, flow, target, "--back_projection", 3, "--start", 12, "--stop", 13).returncode == 0
    for name, mean in (("u", 0), ("p", MEAN)):
        lr, errors = next(open_field(flow, name).read(12, 13))[0][0], []
        for path, number in ((enlarged, 12), (target, 0)):
            with xarray.open_dataset(path) as dataset:
                sr = np.nan_to_num(dataset[name].values[number] - mean).astype(np.float32)
            errors.append(np.abs(Reduce(2, 3.0)(torch.from_numpy(sr)[None, None])[0, 0].numpy() - lr)[18:, :15].mean())
        assert errors[1] < 0.7 * errors[0], name


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("names", ["u,p", "u"])
def test_frames_are_made_in_their_order_and_none_is_held(flow, tmp_path, names, suffix):
    source, asked, made = open_field(flow, names), [], []

    def frame(number: int):
        assert sum(one() is not None for one in made) <= 2 * len(source.channels)
        asked.append(number)
        planes = [np.full((2 * HEIGHT, 2 * WIDTH), number + channel, np.float64)
                  for channel in range(len(source.channels))]
        made.extend(map(weakref.ref, planes))
        return planes if len(planes) > 1 else planes[0]

    write_field(tmp_path / f"out{suffix}", source, range(30), 2, frame, "test", "mark")
    assert asked == list(range(30))
    with xarray.open_dataset(tmp_path / f"out{suffix}") as out:
        for channel, name in enumerate(source.channels):
            assert np.array_equal(out[name][:, 5, 7], np.arange(30.0) + channel)


def test_a_surface_beside_a_level_does_not_get_its_coordinate(tmp_path):
    values = np.random.default_rng(0).normal(size=(6, 2, 16, 16)).astype(np.float32)
    xarray.Dataset({"t": (("time", "level", "y", "x"), values, {"units": "K"}),
                    "ps": (("time", "y", "x"), values[:, 0], {"units": "Pa"})},
                   {"level": ("level", [850.0, 500.0], {"units": "hPa"})}).to_netcdf(tmp_path / "in.nc")
    for names in ("t,ps", "ps,t"):
        source = open_field(tmp_path / "in.nc", names, "level=500")
        write_field(tmp_path / f"{names}.nc", source, range(6), 2,
                    lambda number: [np.zeros((32, 32), np.float32)] * 2, "test", "mark")
        with xarray.open_dataset(tmp_path / f"{names}.nc", decode_coords=False) as out:
            assert out["t"].attrs["coordinates"] == "level" and "coordinates" not in out["ps"].attrs
            assert out["level"].values == 500 and out["t"].dims == out["ps"].dims == ("time", "y", "x")


def test_variables_that_do_not_fit_the_network_are_refused_by_name(network, flow, tmp_path, trained):
    lacking, renamed = tmp_path / "lacking.nc", tmp_path / "renamed.nc"
    with xarray.open_dataset(flow) as dataset:
        dataset[["u"]].to_netcdf(lacking)
        dataset.rename(u="uo", p="po").to_netcdf(renamed)
    for run, source, more, words in (
            (network, lacking, (), "has no variable 'p'; it has: u"),
            (network, flow, ("--variable", "u"), "was trained on u, p, and"),
            (network, flow, ("--variable", "u,w"), "was trained on u, p, in this order, and"),
            (network, flow, ("--variable", "u,p,u"), "has u twice"),
            (trained, flow, ("--variable", "u,p"), "trained on a video or images")):
        assert_refused(upscale(run, source, tmp_path / "out.nc", *more), words)
    assert "was trained on u,p; name others in the same order" in upscale(network, lacking, tmp_path / "out.nc").stderr
    done = upscale(network, renamed, tmp_path / "out.nc", "--variable", "uo,po", "--stop", 1)
    assert done.returncode == 0 and "are taken in their order, uo for u, po for p" in done.stderr, done.stderr
    with xarray.open_dataset(tmp_path / "out.nc") as out:
        assert out["uo"].attrs["units"] == "m s-1" and out["po"].attrs["units"] == "Pa"


def test_other_units_and_values_far_from_the_training_are_told_for_each(network, tmp_path):
    u, p = velocity_and_pressure(6)
    path = write_flow(tmp_path / "in.nc", u, p / 100)
    with xarray.open_dataset(path) as dataset:
        dataset = dataset.load()
    dataset["p"].attrs["units"] = "hPa"
    dataset.to_netcdf(path)
    done = upscale(network, path, tmp_path / "out.nc", "--dry-run")
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert done.returncode == 0 and len(warnings) == 4, done.stderr
    assert "p is 1.01e+03 to 1.01e+03 in its first frame" in warnings[0]
    assert warnings[1] == "warning: p is in hPa, and run_u,p was trained on Pa"
    assert all(f"warning: {name} has no value in" in line for name, line in zip("up", warnings[2:], strict=True))
    assert "u: eastward velocity, " in done.stdout and "p: missing: " in done.stdout
