"""Fields that go on at the other side: a field that is rolled gives the same results, rolled."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray
from field_networks import untrained

from hpc_vsr.data.build import degraded_frames
from hpc_vsr.data.clips import Clips
from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.degrade import degrade
from hpc_vsr.data.patches import Patches
from hpc_vsr.data.plan import format_plan, plan_dataset
from hpc_vsr.data.recipe import Recipe
from hpc_vsr.data.samples import Split
from hpc_vsr.data.splits import REACH
from hpc_vsr.evaluation.baselines import tune_noise
from hpc_vsr.evaluation.methods import baselines, network_methods
from hpc_vsr.media.field_source import open_field
from hpc_vsr.models.enlarge import Enlarge
from hpc_vsr.models.reduce import Reduce, back_project
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.models.wrap import wrap
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.progress import Progress
from hpc_vsr.training.validation import validate
from hpc_vsr.upscale.field import FieldUpscaling
from hpc_vsr.upscale.settings import UpscaleSettings

H, W, SHIFT = 20, 24, 7
AXES = {"x": (-1,), "y": (-2,), "xy": (-2, -1)}


def noise(*shape) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=shape).astype(np.float32)


def roll(values, periodic: str, shift: int):
    axes = AXES[periodic]
    return torch.roll(values, [shift] * len(axes), axes) if isinstance(values, torch.Tensor) else \
        np.roll(values, [shift] * len(axes), axes)


def globe(path, lon=None, values=None, units="degrees_east", **attributes):
    lon = np.arange(W) * 360 / W if lon is None else lon
    values = noise(30, H, len(lon)) if values is None else values
    xarray.Dataset({"v": (("time", "lat", "lon"), values)},
                   {"lat": ("lat", np.linspace(-60, 60, H), {"units": "degrees_north"}),
                    "lon": ("lon", lon, {"units": units, **attributes})}).to_netcdf(path)
    return path


@pytest.mark.parametrize("lon", [
    np.arange(W) * 360 / W, np.arange(W) * 360 / W - 180 + 7.5, (np.arange(W) * 360 / W + 200) % 360,
    np.arange(W)[::-1] * 360 / W, (np.arange(W) * np.float32(360 / W)).astype(np.float32)])
def test_longitudes_around_the_globe_are_periodic(tmp_path, lon):
    source = open_field(globe(tmp_path / "f.nc", lon), "v")
    assert source.facts.periodic == "x" and "periodic: x (lon goes around the globe)" in source.facts.lines
    assert open_field(tmp_path / "f.nc", "v", periodic="none").facts.periodic == ""


@pytest.mark.parametrize(("lon", "units"), [
    (np.arange(W) * 350 / W, "degrees_east"), (np.linspace(0, 355, W), "degrees_east"),
    (np.arange(W) * 360 / W, "m"), (np.arange(W) * 15.0 + (np.arange(W) > 4) * 5, "degrees_east")])
def test_other_coordinates_are_not(tmp_path, lon, units):
    source = open_field(globe(tmp_path / "f.nc", lon, units=units), "v")
    assert source.facts.periodic == "" and not source.facts.warnings
    assert open_field(globe(tmp_path / "g.nc", lon, units="m"), "v", periodic="x").facts.periodic == "x"


@pytest.mark.parametrize(("name", "units"), [
    ("lon", None), ("longitude", "1"), ("nav_lon", "degrees"), ("x", "degrees_east"), ("rlon", "radians")])
def test_a_longitude_is_known_by_its_name_or_its_units(tmp_path, name, units):
    lon = np.arange(W) * (2 * np.pi if units == "radians" else 360) / W
    attributes = {"standard_name": "grid_longitude"} if name == "rlon" else {}
    for dimension in (name, "i"):
        xarray.Dataset({"v": (("time", "y", dimension), noise(30, H, W)),
                        name: (dimension, lon, attributes | ({"units": units} if units else {}))}
                       ).to_netcdf(tmp_path / f"{dimension}.nc")
        source = open_field(tmp_path / f"{dimension}.nc", "v")
        assert source.facts.periodic == "x" and f"periodic: x ({dimension} goes around the globe)" in source.facts.lines


def ocean(columns: int, turn: float = 12.0, first: float = 0.0, degrees: float = 360.0):
    """Latitudes and longitudes (H, W + 2) of a grid whose north pole is moved by some degrees, as in ocean models."""
    lat, lon = np.deg2rad(np.linspace(-75, 75, H))[:, None], np.deg2rad(first + np.arange(W + 2) * degrees / columns)
    x, y, z = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat) * np.ones(W + 2)
    a = np.deg2rad(turn)
    x, z = np.cos(a) * x + np.sin(a) * z, np.cos(a) * z - np.sin(a) * x
    return np.rad2deg(np.arcsin(z)), np.rad2deg(np.arctan2(y, x))


@pytest.mark.parametrize(("places", "periodic", "words"), [
    (ocean(W + 2), "x", "periodic: x (i goes around the globe)"),
    (ocean(W + 2, turn=0, first=170), "x", "periodic: x (i goes around the globe)"),
    (ocean(W + 1), "", "such as with ncks -d i,0,24"),
    (ocean(W), "", "leave the last 2 columns out, such as with ncks -d i,0,23"),
    (ocean(W + 2, degrees=340), "", "degrees of longitude"), (ocean(W + 2, degrees=60), "", "degrees of longitude")])
@pytest.mark.parametrize("kind", ["coordinate", "variable", "with time", "masked", "columns first"])
def test_longitudes_over_rows_and_columns(tmp_path, places, periodic, words, kind):
    (lat, lon), values = places, noise(30, H, W + 2)
    if kind == "masked":
        lon = lon.copy()
        lon[5:9, 3:8] = np.nan  # as over land
    dims = ("time", "j", "i") if kind == "with time" else ("j", "i")
    beside = {name: (dims, np.tile(one, (30, 1, 1)) if kind == "with time" else one, {"units": units})
              for name, one, units in (("latitude", lat, "degrees_north"), ("longitude", lon, "degrees"))}
    field = xarray.Dataset({"v": (("time", "j", "i"), values)}).assign(beside)
    field = field.set_coords(["latitude", "longitude"]) if kind == "coordinate" else field
    if kind == "columns first":
        field["longitude"] = field["longitude"].transpose()
    field.to_netcdf(tmp_path / "f.nc")
    source = open_field(tmp_path / "f.nc", "v")
    assert source.facts.periodic == periodic
    assert words in " ".join([*source.facts.lines, *source.facts.warnings])
    if not periodic:
        with pytest.raises(InputError, match="spans .* degrees with its cells, and not 360"):
            open_field(tmp_path / "f.nc", "v", periodic="x")


def test_what_cannot_be_periodic_is_told_or_refused(tmp_path):
    repeated = globe(tmp_path / "a.nc", np.linspace(0, 360, W))
    source = open_field(repeated, "v")
    assert source.facts.periodic == ""
    assert "lon has its first longitude again at the end" in source.facts.warnings[0]
    for path, asked, words in ((repeated, "x", "leave out the last column"),
                               (globe(tmp_path / "b.nc", np.arange(W) * 1.0), "x", "spans 24 degrees .* not 360"),
                               (tmp_path / "b.nc", "y", "end at the poles")):
        with pytest.raises(InputError, match=words):
            open_field(path, "v", periodic=asked)


@pytest.mark.parametrize("scale", [2, 3])
def test_it_is_a_part_of_the_data_set_unless_the_frames_are_cropped(tmp_path, scale):
    width = {2: W, 3: 50}[scale]
    values = np.tile(noise(30, H, 1), (1, 2, width))[:, :24]
    path = tmp_path / "f.nc"
    xarray.Dataset({"v": (("time", "lat", "lon"), values)},
                   {"lon": ("lon", np.arange(width) * 360 / width, {"units": "degrees_east"})}).to_netcdf(path)
    recipe = Recipe(field=path, variable="v", shards=3, degradation=Degradation(scale=scale), out=tmp_path / "d")
    recipes = [dataclasses.replace(recipe, periodic=periodic) for periodic in ("auto", "none")]
    if scale == 3:
        with pytest.raises(InputError, match="has 50 columns, .* scale 3 .* --periodic none"):
            plan_dataset(dataclasses.replace(recipe, periodic="x"))
    auto, none = (plan_dataset(recipe) for recipe in recipes)
    assert (auto.fingerprint == none.fingerprint) == (scale == 3)
    assert auto.clips[0].facts.periodic == ("x" if scale == 2 else "")
    assert any("not periodic any more and has a seam" in text for text in auto.clips[0].facts.warnings) == (scale == 3)
    assert "lon goes around the globe" in format_plan(auto)


@pytest.mark.parametrize("periodic", ["x", "y", "xy"])
@pytest.mark.parametrize(("kind", "sigma", "scale"), [("BD", 3.0, 2), ("BD", 1.5, 3), ("BI", 1.0, 4), ("BD", 9.0, 2)])
def test_the_degradation_of_a_rolled_frame_is_the_rolled_degradation(kind, sigma, scale, periodic):
    degradation, hr = Degradation(kind, sigma, scale), noise(1, scale * H, scale * W)
    lr = degrade(hr, degradation, periodic)
    again = degrade(roll(hr, periodic, scale * SHIFT), degradation, periodic)
    np.testing.assert_allclose(again, roll(lr, periodic, SHIFT), atol=2e-6)
    # away from the ends nothing changes, and the torch version is the same filter
    reach = int(np.ceil(4 * sigma / scale)) + 2
    inside = np.s_[:, reach:-reach, reach:-reach]
    if lr[inside].size:
        np.testing.assert_allclose(lr[inside], degrade(hr, degradation)[inside], atol=2e-6)
    reduce = Reduce(scale, degradation.blur_sigma)
    np.testing.assert_allclose(reduce(torch.from_numpy(hr)[None], periodic)[0].numpy(), lr, atol=5e-6)


def test_the_lr_frames_and_filled_gaps_of_a_data_set_have_no_seam(tmp_path):
    values = noise(30, H, W)
    values[:, 5:9, :2] = values[:, 6:8, -3:] = np.nan  # a gap across 0 degrees
    frames = []
    for name, shift in (("a.nc", 0), ("b.nc", 2 * SHIFT)):
        path = globe(tmp_path / name, values=np.roll(values, shift, -1))
        plan = plan_dataset(Recipe(field=path, variable="v", shards=3, out=tmp_path / "d"))
        assert plan.clips[0].layout.source.periodic == "x"
        frames.append(list(degraded_frames(plan.clips[0], 3, 4))[0])
    for one, other, shift in zip(*frames, (SHIFT, 2 * SHIFT, 2 * SHIFT), strict=True):
        np.testing.assert_allclose(other, np.roll(one, shift, -1), atol=2e-6)


def untrained_network(name: str, **settings):
    """A network of random weights, with a residual path whose filter reaches far."""
    size = {"width": 4, "blocks": 2} if name == "compact" else {"n_2d": 1, "n_3d": 1}
    upscaler = untrained(ModelSettings(name, **size, **settings), offset=0.2, extent=2.0, sigma=1.5)
    network = upscaler.trained.network
    for parameter in network.core.last.parameters():
        parameter.normal_(0, 0.1)
    return upscaler


@pytest.mark.parametrize("settings", [
    {"name": "compact", "skip": "wiener"}, {"name": "compact", "skip": "bicubic", "input": "deconvolved"}])
@pytest.mark.parametrize("periodic", ["x", "xy"])
def test_a_rolled_field_is_upscaled_to_the_rolled_result(settings, periodic):
    upscaler, window = untrained_network(**settings), torch.from_numpy(noise(1, 5, H, W))
    out = upscaler.enlarge(window, periodic=periodic)
    again = upscaler.enlarge(roll(window, periodic, SHIFT), periodic=periodic)
    assert out.shape == (1, 2 * H, 2 * W)
    torch.testing.assert_close(again, roll(out, periodic, 2 * SHIFT), rtol=0, atol=2e-5)
    # without it there is a seam
    plain, moved = upscaler.enlarge(window), upscaler.enlarge(roll(window, periodic, SHIFT))
    assert (moved - roll(plain, periodic, 2 * SHIFT)).abs().max() > 1e-3
    # in tiles it is the same
    upscaler.tile = 8
    torch.testing.assert_close(upscaler.enlarge(window, periodic=periodic), out, rtol=0, atol=2e-5)


def test_a_written_field_has_no_seam_also_after_back_projection(tmp_path):
    values, fields = noise(6, H, W), []
    values[:, 3:5, :2] = np.nan
    for name, shift in (("a", 0), ("b", SHIFT)):
        path, out = globe(tmp_path / f"{name}.nc", values=np.roll(values, shift, -1)), tmp_path / f"{name}_out.nc"
        upscaler = untrained_network("compact", skip="wiener")
        settings = UpscaleSettings(path, out, tmp_path, start=2, stop=4, back_projection=2)
        work = FieldUpscaling.plan(settings, upscaler, open_field(path, "v"))
        work.make(range(1), upscaler, Progress(2, "", "frame", shown=False))
        with xarray.open_dataset(out) as dataset:
            fields.append(np.roll(dataset["v"].values, -2 * shift, -1))
    assert np.isnan(fields[0]).sum() == 2 * 4 * 4
    np.testing.assert_allclose(fields[1], fields[0], rtol=0, atol=1e-4)


def test_a_network_of_the_paper_has_no_seam():
    upscaler, window = untrained_network("delta"), torch.from_numpy(noise(1, 5, 8, 10))
    out, again = (upscaler.enlarge(values, periodic="x") for values in (window, roll(window, "x", 3)))
    torch.testing.assert_close(again, roll(out, "x", 6), rtol=0, atol=2e-5)


def test_back_projection_has_no_seam():
    reduce, enlarge = Reduce(2, 1.5), Enlarge("bicubic", 2)
    sr, lr = torch.from_numpy(noise(1, 1, 2 * H, 2 * W)), torch.from_numpy(noise(1, 1, H, W))
    out = back_project(sr, lr, reduce, enlarge, 3, "xy")
    again = back_project(roll(sr, "xy", 2 * SHIFT), roll(lr, "xy", SHIFT), reduce, enlarge, 3, "xy")
    torch.testing.assert_close(again, roll(out, "xy", 2 * SHIFT), rtol=0, atol=1e-4)


def test_a_wider_margin_than_the_frame_shows_it_again():
    values = torch.arange(6.0).reshape(1, 2, 3)
    assert wrap(values, 4, "x")[0, 0].tolist() == [2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert wrap(values, 1, "y")[0, :, 0].tolist() == [3, 0, 3, 0] and wrap(values, 9, "") is values


def fake_split(lr: np.ndarray, hr: np.ndarray, periodic: str) -> Split:
    """A split of frames in memory, as a data set of that kind gives it."""
    split = Split.__new__(Split)
    split.manifest = SimpleNamespace(
        periodic=periodic, scale=2, offset=0.0, extent=1.0, subtracted=0.0, lr_size=lr.shape[-2:],
        hr_size=hr.shape[-2:], channels=["v"], degradation=Degradation(sigma=1.5), is_8bit=False)
    split.start = split.first = 0
    split.stop = len(lr)
    split.centres = range(REACH, len(lr) - REACH)
    split.memory = torch.from_numpy(lr), torch.from_numpy(hr)
    return split


@pytest.mark.parametrize("periodic", ["x", "y", "xy"])
@pytest.mark.parametrize(("size", "margin"), [(8, 0), (8, 5), (0, 3)])
def test_patches_begin_anywhere_and_go_on_at_the_other_side(periodic, size, margin):
    hr = noise(9, 1, 2 * H, 2 * W)
    lr = hr[..., ::2, ::2].copy()  # an LR pixel is the first of its HR pixels, so that places can be compared
    patches = Patches(fake_split(lr, hr, periodic), size, margin, False, 0)
    rows, columns = patches.shape
    ends = set()
    for position in range(60):
        patch = patches[position]
        inner = patch.lr[0, REACH, margin:, margin:][:rows, :columns]
        assert patch.hr.shape == (1, 2 * (rows - 2), 2 * (columns - 2))
        torch.testing.assert_close(patch.hr[0, ::2, ::2], inner[1:-1, 1:-1])
        # where the patch begins, and what must be around it
        frame, top, left = np.argwhere(lr[:, 0] == inner[0, 0].item())[0]
        places = [(np.arange(start - margin, start + length + margin) % side if axis in periodic else
                   np.arange(start - margin, start + length + margin).clip(0, side - 1))
                  for axis, start, length, side in (("y", top, rows, H), ("x", left, columns, W))]
        np.testing.assert_array_equal(patch.lr[0, REACH], lr[frame, 0][np.ix_(*places)])
        ends |= {axis for axis, start, length, side in (("y", top, rows, H), ("x", left, columns, W))
                 if start + length > side}
    assert ends == set(periodic)


def test_validation_and_every_method_of_an_evaluation_have_no_seam():
    hr = noise(5, 1, 2 * H, 2 * W)
    results = []
    upscaler = untrained_network("compact", skip="wiener")
    trained = upscaler.trained
    for shift in (0, SHIFT):
        moved = np.roll(hr, 2 * shift, -1)
        lr = np.stack([degrade(frame, Degradation(sigma=1.5), "x") for frame in moved])
        split = fake_split(lr, moved, "x")
        pair = [(torch.from_numpy(lr[2]), torch.from_numpy(moved[2]))]
        margin = trained.network.find_wrap(1)
        ranks = SimpleNamespace(device=torch.device("cpu"), rank=0, world_size=1, sum=lambda values: values)
        # the validation leaves out two pixels at the ends, so only what it gives to the network is compared
        seen = []

        def upscale(window: torch.Tensor, seen=seen) -> torch.Tensor:
            seen.append(window)
            return torch.zeros(1, 1, *(2 * side for side in window.shape[-2:]))

        validate(upscale, Clips.of(split), ranks, "fp32", 1, margin=margin)
        assert seen[0].shape[-1] == W + 2 * margin
        torch.testing.assert_close(seen[0][..., margin:-margin], torch.from_numpy(lr)[None].transpose(1, 2))
        methods = [*baselines(split.manifest, 1e-2, torch.device("cpu")),
                   *network_methods("n", trained, split.manifest, "fp32", torch.device("cpu"), True, 2, False)]
        window = torch.from_numpy(lr).transpose(0, 1)
        with torch.inference_mode():
            results.append({"noise": tune_noise(pair, 2, 1.5, "x"),
                            **{method.name: roll(method.enlarge(window), "x", -2 * shift) for method in methods}})
    assert results[0].keys() == {"noise", "bicubic", "wiener", "n", "n x8", "n bp"}
    assert results[0].pop("noise") == pytest.approx(results[1].pop("noise"), rel=0.02)
    for name, result in results[0].items():
        torch.testing.assert_close(results[1][name], result, rtol=0, atol=1e-4)


@pytest.mark.parametrize("periodic", ["", "x", "xy"])
@pytest.mark.parametrize(("size", "margin"), [(8, 0), (8, 5), (0, 3), (12, 14)])
def test_a_batch_that_is_gathered_has_the_patches_to_the_bit(periodic, size, margin):
    random = np.random.default_rng(0)
    lr, hr = random.random((12, 3, 12, 16), np.float32), random.random((12, 3, 24, 32), np.float32)
    hr[:, :, 5:9, 7:11] = np.nan
    split = fake_split(lr, hr, periodic)
    split.manifest.offset, split.manifest.extent = 0.3, 1.7
    patches = Patches(split, size, margin, True, 4)
    turned = {patches.place(position).turns for position in range(80)}
    assert turned == set(range(16))
    for first in range(0, 80, 16):
        positions = range(first, first + 16)
        batch, alone = patches.batch(positions), [patches[position] for position in positions]
        for values, expected in zip(batch, (torch.stack(parts) for parts in zip(*alone, strict=True)), strict=True):
            assert values.is_contiguous() and torch.equal(values.view(torch.int32), expected.view(torch.int32))
