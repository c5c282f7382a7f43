"""Several variables of a field as channels: each is in the data set what it is in a data set of its own."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch
import xarray
from files import contents
from flows import HEIGHT, MEAN, WIDTH, velocity_and_pressure, write_flow
from machine import find_mpiexec
from stages import assert_refused, run_stage

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.patches import Patches
from hpc_vsr.data.plan import format_plan, plan_dataset
from hpc_vsr.data.recipe import Recipe, read_recipe
from hpc_vsr.data.samples import Split
from hpc_vsr.media.field_source import open_field
from hpc_vsr.system.errors import InputError


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    return write_flow(tmp_path_factory.mktemp("flow") / "flow.nc", *velocity_and_pressure())


@pytest.fixture(scope="module")
def folders(flow, tmp_path_factory):
    """The data sets of u and p together, and of each alone, by the text of --variable."""
    folder = tmp_path_factory.mktemp("data")
    for names in ("u,p", "u", "p"):
        done = run_stage("preprocess", "--field", flow, "--variable", names, "--shards", 4, "--out", folder / names)
        assert done.returncode == 0, done.stderr
    return {names: folder / names for names in ("u,p", "u", "p")}


def test_each_channel_is_the_variable_alone(folders):
    for path in sorted(folders["u,p"].glob("*.h5")):
        u, p = (h5py.File(folders[name] / path.name) for name in ("u", "p"))
        with h5py.File(path) as both, u, p:
            assert both["lr"].shape[1:] == (5, 2, HEIGHT // 2, WIDTH // 2)
            assert both["hr"].shape[1:] == (2, HEIGHT, WIDTH)
            for name in ("frames/lr", "frames/hr", "hr"):
                np.testing.assert_array_equal(both[name][:], np.concatenate([u[name][:], p[name][:]], 1))
            np.testing.assert_array_equal(both["frames/valid"][:], np.stack([u["frames/valid"], p["frames/valid"]], 1))
            assert both.attrs["channels"] == "u,p" and both.attrs["units"] == "m s-1, Pa"


def test_each_has_its_own_range_units_and_mean(folders):
    content = json.loads((folders["u,p"] / "dataset.json").read_text())
    train = slice(*content["splits"]["train"])
    u, p = (values[train] for values in velocity_and_pressure())
    mean = content["source"]["offset"]
    assert mean[0] == 0 and mean[1] == pytest.approx(MEAN, abs=1)
    assert (content["channels"], content["units"]) == (["u", "p"], ["m s-1", "Pa"])
    for channel, values in enumerate((u, p)):
        low, high = np.nanmin(values) - mean[channel], np.nanmax(values) - mean[channel]
        assert content["value_range"][channel] == pytest.approx([low, high], rel=1e-4)
        assert content["normalisation"]["offset"][channel] == pytest.approx(low, rel=1e-4)
        assert content["normalisation"]["extent"][channel] == pytest.approx(high - low, rel=1e-4)
    assert content["source"]["long_name"] == ["eastward velocity", "p"]


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_network_sees_each_on_its_own_range_and_no_value_where_one_is_missing(folders, in_memory):
    manifest = read_manifest(folders["u,p"])
    split = Split(manifest, "train", torch.device("cpu") if in_memory else None)
    hr = split.normalise(split.hr_frame(4))
    for channel, values in enumerate(velocity_and_pressure()):
        assert np.array_equal(hr[channel].isnan().numpy(), np.isnan(values[4]))
        low, high = np.nanmin(values[:21]), np.nanmax(values[:21])
        known = ~np.isnan(values[4])
        np.testing.assert_allclose(hr[channel].numpy()[known], ((values[4] - low) / (high - low))[known], atol=1e-3)
    patches = Patches(split, 12, 3, True, 1)
    alone = [patches[position] for position in range(8)]
    if in_memory:
        for values, expected in zip(patches.batch(range(8)), (torch.stack(one) for one in zip(*alone, strict=True)),
                                    strict=True):
            assert torch.equal(values.view(torch.int32), expected.view(torch.int32))
    assert min(patch.lr.min() for patch in alone) > -0.2 and max(patch.lr.max() for patch in alone) < 1.2


def test_a_list_in_a_recipe_is_the_same_and_the_order_of_names_is_that_of_the_channels(flow, folders, tmp_path):
    (tmp_path / "r.toml").write_text(f'field = "{flow}"\nvariable = ["u", "p"]\nshards = 4\n')
    fingerprint = read_manifest(folders["u,p"]).fingerprint
    assert plan_dataset(read_recipe(tmp_path / "r.toml")).fingerprint == fingerprint
    turned = plan_dataset(Recipe(field=flow, variable="p,u", shards=4))
    assert turned.clips[0].layout.channels == ["p", "u"] and turned.fingerprint != fingerprint
    done = run_stage("preprocess", "--recipe", tmp_path / "r.toml", "--dry-run")
    assert done.returncode == 0 and "u: eastward velocity, " in done.stdout and "(Pa)" in done.stdout, done.stderr
    assert "p: missing: " in format_plan(turned)


@pytest.mark.mpi
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_the_bytes_of_several_variables_do_not_depend_on_the_ranks(flow, folders, tmp_path, num_ranks):
    done = run_stage("preprocess", "--field", flow, "--variable", "u,p", "--shards", 4, "--out", tmp_path / "u,p",
                     launcher=(find_mpiexec(), "-n", str(num_ranks)))
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "u,p") == contents(folders["u,p"])


def test_finished_shards_are_kept_and_a_damaged_one_is_written_again(flow, folders, tmp_path):
    command = ("preprocess", "--field", flow, "--variable", "u,p", "--shards", 4, "--out", tmp_path / "u,p")
    assert run_stage(*command).returncode == 0
    (tmp_path / "u,p" / "val-00000-of-00001.h5").unlink()
    again = run_stage(*command)
    assert again.returncode == 0 and "3 finished before" in again.stderr
    assert contents(tmp_path / "u,p") == contents(folders["u,p"])


def staggered(path, rows: str, columns: str, **attributes):
    sizes = {"y": 32, "x": 40, "x_u": 41}
    write_flow(path, *velocity_and_pressure(8))
    with xarray.open_dataset(path) as dataset:
        values = np.zeros((8, sizes[rows], sizes[columns]), np.float32)
        return dataset.load().assign({"v": (("time", rows, columns), values, attributes)})


def test_variables_on_other_points_are_refused(tmp_path):
    path = tmp_path / "f.nc"
    for rows, columns, attributes, words in (
            ("y", "x_u", {}, r"u lies on \(time: 8, y: 32, x: 40\) and v on \(time: 8, y: 32, x_u: 41\)"),
            ("x", "y", {}, r"v on \(time: 8, x: 40, y: 32\)"),
            ("y", "x", {"stagger": "X"}, None)):
        staggered(path, rows, columns, **attributes).to_netcdf(path, mode="w")
        if words is None:  # a place that only one of them has says nothing
            assert open_field(path, "u,v").channels == ("u", "v")
            continue
        with pytest.raises(InputError, match=f"{path}: .*{words}.*interpolate them to the same points"):
            open_field(path, "u,v")
    one, other = staggered(path, "y", "x"), tmp_path / "g.nc"
    one = one.assign_coords({name: (("y", "x"), np.zeros((32, 40))) for name in ("lat_u", "lat_p")})
    one["u"].encoding["coordinates"], one["v"].encoding["coordinates"] = "lat_u", "lat_p"
    one.to_netcdf(other)
    with pytest.raises(InputError, match=r"x: 40\), at lat_u and v on .*, at lat_p; .*staggered"):
        open_field(other, "u,v")


def test_what_is_no_list_of_variables_is_refused(flow, tmp_path):
    for names, words in (("u,w", "has no variable 'w'"), ("u,u", "has u twice"), ("u,", "with commas between them"),
                         ("u,crs", "it must hold numbers over (time, y, x)"), ("a/u,p", "in different groups")):
        done = run_stage("preprocess", "--field", flow, "--variable", names, "--out", tmp_path / "d")
        assert_refused(done, words)
    assert not list(tmp_path.iterdir())


def test_a_choice_is_made_in_the_variables_that_have_the_dimension(tmp_path):
    """Temperature on levels, and the pressure at the surface."""
    values = np.random.default_rng(0).normal(size=(20, 2, 16, 16)).astype(np.float32)
    xarray.Dataset({"t": (("time", "level", "y", "x"), values, {"units": "K"}),
                    "ps": (("time", "y", "x"), values[:, 0] * 100, {"units": "Pa"})},
                   {"level": ("level", [850.0, 500.0], {"units": "hPa"})}).to_netcdf(tmp_path / "f.nc")
    for names, place in (("t,ps", 0), ("ps,t", 1)):
        source = open_field(tmp_path / "f.nc", names, "level=500")
        frame, valid = next(source.read(3, 4))
        assert valid is None and source.description["selection"] == {"level": 500.0}
        np.testing.assert_array_equal(frame[place], values[3, 1])
        np.testing.assert_array_equal(frame[1 - place], values[3, 0] * 100)
    with pytest.raises(InputError, match="choose one, such as --select level=850"):
        open_field(tmp_path / "f.nc", "ps,t")
    with pytest.raises(InputError, match="has no further dimension depth"):
        open_field(tmp_path / "f.nc", "t,ps", "level=500,depth=1")


def test_a_frame_that_one_variable_lacks_is_left_out_and_that_is_told(tmp_path):
    u, p = velocity_and_pressure()
    p[9] = np.nan
    source = open_field(write_flow(tmp_path / "f.nc", u, p), "u,p")
    assert (list(source.facts.breaks), list(source.facts.empty)) == ([9, 10], [9])
    assert "p has no valid value in frame 9" in source.facts.warnings[0]
    assert "left out for all, also for u" in source.facts.warnings[1]
