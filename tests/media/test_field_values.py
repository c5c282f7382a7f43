"""Values of fields: what is missing, what is refused or told, and that no digit is lost."""

from __future__ import annotations

import json
import pickle

import h5py
import netCDF4
import numpy as np
import pytest
import xarray
import zarr
from field_networks import untrained, write_netcdf

from hpc_vsr.data.plan import format_plan, plan_dataset
from hpc_vsr.data.recipe import Recipe
from hpc_vsr.media import field_look, field_values
from hpc_vsr.media.field_outliers import find_outliers, looks_like_fill
from hpc_vsr.media.field_source import open_field
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.progress import Progress
from hpc_vsr.upscale.field import FieldUpscaling
from hpc_vsr.upscale.settings import UpscaleSettings

T, H, W = 20, 16, 20
FIELD = np.random.default_rng(0).uniform(-1, 1, (T, H, W)).astype(np.float32)
GAP = np.s_[:, :2, :3]  # 6 cells a frame


def read_all(source) -> tuple[np.ndarray, np.ndarray]:
    """Return the values (T, H, W) and where they are valid."""
    frames = list(source.read(0, source.num_frames))
    everywhere = np.ones((source.height, source.width), bool)
    return np.stack([frame[0] for frame, _ in frames]), np.stack([everywhere if valid is None else valid
                                                                  for _, valid in frames])


def with_gap(value, dtype=np.float32) -> np.ndarray:
    values = FIELD.astype(dtype)
    values[GAP] = value
    return values


def packed() -> np.ndarray:
    values = np.rint(FIELD * 1000).astype(np.int16)
    values[GAP] = -32767
    return values


def unsigned(value: int) -> np.ndarray:
    values = np.rint(100 + 100 * FIELD).astype(np.uint8)
    values[GAP] = value
    return values.view(np.int8)


@pytest.mark.parametrize(("values", "attributes", "rule"), [
    (with_gap(1e20), {"missing_value": np.float64(1e20)}, "missing_value 1e+20"),
    (with_gap(1e20), {"_FillValue": np.float32(1e20)}, "_FillValue 1e+20"),
    (with_gap(1e20, np.float64), {"missing_value": np.float32(1e20)}, "missing_value 1e+20"),
    (with_gap(-9999), {"missing_value": "-9999"}, "missing_value -9999"),
    (with_gap(-9999), {"missing_value": "-9999.f"}, "missing_value -9999"),
    (with_gap(-8888), {"missing_value": np.array([-9999, -8888], np.float32)}, "missing_value -8888"),
    (with_gap(np.inf), {"missing_value": np.float32(np.inf)}, "missing_value inf"),
    (with_gap(-9999), {"valid_range": np.array([-2, 2], np.float32)}, "valid_range -2"),
    (with_gap(7), {"valid_max": np.float64(1.5)}, "valid_max 1.5"),
    (with_gap(-7), {"valid_min": "-1.5"}, "valid_min -1.5"),
    (with_gap(np.nan), {}, "NaN"),
    # packed: in stored units, or in those of the decoded values if the type says so
    (packed(), {"scale_factor": 0.001, "valid_range": np.array([-1000, 1000], np.int16)}, "valid_range -1000"),
    (packed(), {"scale_factor": 0.001, "valid_range": np.array([-1.0, 1.0])}, "valid_range -1"),
    (packed(), {"scale_factor": 0.001, "missing_value": np.float32(-32767)}, "missing_value -32767"),
    (packed(), {"scale_factor": "0.001", "missing_value": np.int16(-32767)}, "missing_value -32767"),
    # bytes whose sign is an attribute
    (unsigned(255), {"_Unsigned": "true", "scale_factor": 0.01, "add_offset": -1.0, "_FillValue": np.int8(-1)},
     "_FillValue 255"),
    (unsigned(255), {"_Unsigned": "true", "scale_factor": 0.01, "add_offset": -1.0,
                     "valid_range": np.array([0, -56], np.int8)}, "valid_range 200"),
])
def test_what_is_declared_missing_is_missing_and_nothing_else(tmp_path, values, attributes, rule):
    source = open_field(write_netcdf(tmp_path / "f.nc", values, attributes), "v")
    found, valid = read_all(source)
    expected = np.ones((T, H, W), bool)
    expected[GAP] = False
    np.testing.assert_array_equal(valid, expected)
    rounding = 0.006 if values.dtype.itemsize == 1 else 6e-4 if values.dtype.itemsize == 2 else 0
    np.testing.assert_allclose(found[valid], FIELD[valid], rtol=0, atol=rounding)
    assert f"missing: 120 cells ({100 * 6 / (H * W):.2g} %) in 20 frames, by {rule}, filled from the nearest" in \
        source.facts.lines


@pytest.mark.parametrize(("values", "attributes"), [
    (FIELD, {"_FillValue": np.float32(1e20)}),
    (np.maximum(FIELD, 0), {"valid_range": np.array([0.0, FIELD.max().astype(float)])}),  # 0 and the largest are valid
    (np.full((T, H, W), 0.1, np.float32), {"valid_max": 0.1}),  # 0.1 in float is larger than 0.1 in double
    (np.rint(FIELD * 1000).astype(np.int16), {"missing_value": np.float64(1e20)}),
    (np.rint(FIELD * 1000).astype(np.int16), {"scale_factor": 0.001, "valid_range": np.array([-1.0, 1.0])}),
])
def test_values_that_only_look_missing_are_kept(tmp_path, values, attributes):
    source = open_field(write_netcdf(tmp_path / "f.nc", values, attributes), "v")
    found, valid = read_all(source)
    assert valid.all() and "missing: no cells" in source.facts.lines and not source.facts.warnings
    np.testing.assert_allclose(found, values.astype(np.float64) * attributes.get("scale_factor", 1), rtol=1e-7)


def half_written(path, dtype, kind="NETCDF4", fill=None, attributes=None) -> np.ndarray:
    """Write the first half of the rows of a variable of whole numbers; return its values."""
    values = np.rint(100 + 100 * FIELD).astype(dtype)
    with netCDF4.Dataset(path, "w", format=kind) as file:
        for dimension, size in zip(("time", "y", "x"), values.shape, strict=True):
            file.createDimension(dimension, size)
        variable = file.createVariable("v", dtype, ("time", "y", "x"), fill_value=fill)
        variable.setncatts(attributes or {})
        variable.set_auto_maskandscale(False)
        variable[:, : H // 2] = values[:, : H // 2]
    return values


@pytest.mark.parametrize(("kind", "dtypes"), [
    ("NETCDF4", "i2 u2 i4 u4 i8 u8"), ("NETCDF3_CLASSIC", "i2 i4"), ("NETCDF3_64BIT_OFFSET", "i2"),
    ("NETCDF3_64BIT_DATA", "i2 u2 i8 u8"), ("NETCDF4_CLASSIC", "i2")])
def test_what_was_never_written_to_a_netcdf_file_is_missing(tmp_path, kind, dtypes):
    for dtype in dtypes.split():
        values = half_written(tmp_path / f"{dtype}.nc", dtype, kind, attributes={"scale_factor": 0.01})
        source = open_field(tmp_path / f"{dtype}.nc", "v")
        found, valid = read_all(source)
        assert valid[:, : H // 2].all() and not valid[:, H // 2 :].any() and not source.facts.warnings
        np.testing.assert_allclose(found[valid], 0.01 * values[valid], rtol=1e-6)
        rule = f"default fill value {netCDF4.default_fillvals[dtype]:g}"
        assert f"missing: 3,200 cells (50 %) in 20 frames, by {rule}, filled from the nearest" in source.facts.lines
        assert source.description["masked_by"] == [rule]


@pytest.mark.parametrize(("dtype", "attributes"), [
    ("i1", {}), ("u1", {}),  # all values of a byte are data
    ("i2", {"valid_min": np.int16(-32767)}), ("i4", {"valid_range": np.int32([-(2**31) + 1, 300])}),
    ("u2", {"valid_max": np.uint16(2**16 - 1)})])
def test_the_default_fill_value_is_data_of_a_byte_and_within_valid_limits(tmp_path, dtype, attributes):
    half_written(tmp_path / "f.nc", dtype, attributes=attributes)
    found, valid = read_all(open_field(tmp_path / "f.nc", "v"))
    assert valid.all() and found[0, -1, -1] == np.float32(netCDF4.default_fillvals[dtype])


@pytest.mark.parametrize(("fill", "is_data"), [(None, False), (False, True), (1, True)])
def test_the_default_fill_value_is_data_where_something_else_is_filled_in_or_nothing(tmp_path, fill, is_data):
    values = np.linspace(-32767, -20000, T * H * W).reshape(T, H, W).astype(np.int16)
    write_netcdf(tmp_path / "f.nc", values, {} if fill is None else {"_FillValue": fill})
    found, valid = read_all(open_field(tmp_path / "f.nc", "v"))
    assert valid.flat[0] == is_data and valid.sum() >= valid.size - 3 and (found.flat[0] == -32767) == is_data


def test_what_was_never_written_is_missing_in_the_enlarged_field(tmp_path):
    half_written(tmp_path / "f.nc", "i2")
    out = bicubic(tmp_path, tmp_path / "f.nc")
    assert not np.isnan(out[:, :H]).any() and np.isnan(out[:, H:]).all()


def test_the_default_fill_value_is_data_in_a_file_that_the_netcdf_library_did_not_write(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["v"] = np.where(FIELD > 0, 65535, np.rint(65534 * np.abs(FIELD))).astype(np.uint16)
    assert read_all(open_field(tmp_path / "f.h5", "v"))[1].all()


def test_unsigned_values_that_were_never_written_are_missing(tmp_path):
    values = half_written(tmp_path / "f.nc", "i2", attributes={"_Unsigned": "true"})
    found, valid = read_all(open_field(tmp_path / "f.nc", "v"))
    assert not valid[:, H // 2 :].any()
    np.testing.assert_array_equal(found[valid], values[valid])


@pytest.mark.parametrize("units", ["s", "days"])
def test_a_variable_in_units_of_time_is_a_field(tmp_path, units):
    path = write_netcdf(tmp_path / "f.nc", FIELD, {"units": units})
    source = open_field(path)
    assert source.channels == ("v",) and source.description["units"] == units
    np.testing.assert_array_equal(read_all(source)[0], FIELD)


def test_an_attribute_that_is_no_number_is_told_or_refused(tmp_path):
    path = write_netcdf(tmp_path / "f.nc", FIELD, {"missing_value": "none", "valid_range": 3.0})
    assert [warning.split(": ")[1] for warning in open_field(path, "v").facts.warnings] == [
        "missing_value is 'none', which is no number; it is ignored",
        "valid_range has 1 numbers and not 2; it is ignored"]
    path = write_netcdf(tmp_path / "g.nc", packed(), {"scale_factor": "tenths"})
    with pytest.raises(InputError, match="scale_factor is 'tenths', which is no number"):
        open_field(path, "v")


def test_only_what_earlier_versions_read_otherwise_changes_the_description(tmp_path):
    for number, (value, attributes, masked_by) in enumerate([
            (-9999, {"_FillValue": np.float32(-9999)}, None),
            (-9999, {"missing_value": np.float64(-9999)}, None),
            (np.nan, {}, None),
            (1e20, {"missing_value": np.float64(1e20)}, ["missing_value 1e+20"]),
            (-9999, {"missing_value": "-9999"}, ["missing_value -9999"])]):
        path = write_netcdf(tmp_path / f"{number}.nc", with_gap(value), attributes)
        description = open_field(path, "v").description
        assert description.get("masked_by") == masked_by and not {"zeros", "offset"} & description.keys()
    plan = plan_dataset(Recipe(field=path, variable="v", shards=3, out=tmp_path / "d"))
    assert plan.clips[0].layout.source.masked_by == masked_by and "by missing_value -9999" in format_plan(plan)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zeros_of_a_zarr_store_are_data_unless_an_attribute_says_otherwise(tmp_path, zarr_format):
    rain = np.maximum(FIELD, 0)
    for name, attributes in (("plain", {}), ("declared", {"missing_value": 0.0})):
        group = zarr.open_group(str(tmp_path / f"{name}.zarr"), mode="w", zarr_format=zarr_format)
        for key, values in (("v", rain), ("y", np.arange(H) * 1.0)):
            options = {"dimension_names": ["time", "y", "x"][3 - values.ndim : 2 + (values.ndim > 1)]} \
                if zarr_format == 3 else {}
            if key == "y" and options:
                options["dimension_names"] = ["y"]
            array = group.create_array(key, shape=values.shape, dtype=values.dtype, chunks=(1, H, W)[-values.ndim:],
                                       fill_value=0.0, **options)
            array[:] = values
            if zarr_format == 2:
                array.attrs["_ARRAY_DIMENSIONS"] = ["time", "y", "x"] if key == "v" else ["y"]
            array.attrs.update(attributes if key == "v" else {})
        zarr.consolidate_metadata(str(tmp_path / f"{name}.zarr"), zarr_format=zarr_format)
    source = open_field(tmp_path / "plain.zarr", "v")
    found, valid = read_all(source)
    np.testing.assert_array_equal(found, rain)
    assert valid.all() and ("zeros" in source.description) == (zarr_format == 2)
    assert len(source.facts.warnings) == (zarr_format == 2)
    # the coordinate that begins at 0 keeps its zero, too
    assert source.description["coordinates"][0]["first"] == 0.0
    assert source.open_datasets()[0]["y"].values[0] == 0.0
    np.testing.assert_array_equal(read_all(open_field(tmp_path / "declared.zarr", "v"))[1], rain != 0)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_the_fill_value_that_xarray_writes_to_zarr_is_missing(tmp_path):
    dataset = xarray.Dataset({"v": (("time", "y", "x"), with_gap(np.nan))})
    dataset.to_zarr(tmp_path / "f.zarr", zarr_format=2, encoding={"v": {"_FillValue": -9999.0}})
    assert (json.loads((tmp_path / "f.zarr" / "v" / ".zarray").read_text())["fill_value"]) == -9999.0
    source = open_field(tmp_path / "f.zarr", "v")
    np.testing.assert_array_equal(read_all(source)[1], ~np.isnan(with_gap(np.nan)))
    assert "masked_by" not in source.description


@pytest.mark.parametrize("value", [-9999, -999.9, 1e20, 9999, -32768])
def test_an_undeclared_fill_value_is_refused_with_a_way_to_declare_it(tmp_path, value):
    path = write_netcdf(tmp_path / "f.nc", with_gap(value))
    with pytest.raises(InputError, match=rf"f\.nc: v is exactly {value:g} in 120 cells, .* missing_value = {value:g};"
                       .replace("+", r"\+")):
        open_field(path, "v")
    limit = {"valid_min" if value < 0 else "valid_max": np.float32(value)}
    assert read_all(open_field(write_netcdf(path, with_gap(value), limit), "v"))[0].flat[0] == np.float32(value)


@pytest.mark.parametrize(("value", "dtype", "text"), [
    (2147483647, np.int32, "2147483647"), (2147483647, np.float64, "2147483647"),
    (-2147483647, np.int32, "-2147483647"), (-99999999, np.float64, "-99999999"), (999999999, np.int64, "999999999"),
    (-999.9, np.float64, "-999.9"), (-999.9, np.float32, "-999.9"), (9.96921e20, np.float32, "9.96921e+20"),
    (123456789.25, np.float64, "123456789.25"), (1e20, np.float64, "1e+20")])
def test_an_undeclared_fill_value_is_named_to_its_last_digit(tmp_path, value, dtype, text):
    values = np.rint(100 * with_gap(0)).astype(dtype)
    values[GAP] = value
    path = write_netcdf(tmp_path / "f.nc", values, {"_FillValue": dtype(77)})
    try:
        told = " ".join(open_field(path, "v").facts.warnings)
    except InputError as refusal:
        told = str(refusal)
    assert f"v is exactly {text} in 120 cells" in told and f"missing_value = {text}" in told
    assert ("taken as data" in told) == (value in (9.96921e20, 123456789.25))
    declared = write_netcdf(tmp_path / "g.nc", values, {"_FillValue": dtype(77), "missing_value": text})
    assert not read_all(open_field(declared, "v"))[1][GAP].any()


@pytest.mark.parametrize("values", [
    np.maximum(FIELD, 0),  # rain: most cells are 0
    np.minimum(FIELD, 0.5),  # saturated
    np.full((T, H, W), 5.0, np.float32),
    (FIELD > 0).astype(np.float32),  # a mask
    np.where(np.arange(W) < 3, 0, 300 + 50 * FIELD).astype(np.float32),  # a body at rest in a flow
    np.exp(8 * FIELD),  # far from normal
    np.linspace(-9999, 9999, T * H * W).reshape(T, H, W).astype(np.float32),  # the number itself is no fault
    np.where(np.arange(T)[:, None, None] == 3, np.arange(H * W).reshape(H, W), FIELD).astype(np.float32),
])
def test_zeros_saturated_and_constant_values_raise_no_alarm(tmp_path, values):
    source = open_field(write_netcdf(tmp_path / "f.nc", values), "v")
    assert not source.facts.warnings
    np.testing.assert_array_equal(read_all(source)[0], values)


def test_any_other_value_far_out_is_told_and_kept(tmp_path):
    hot_wall = with_gap(500)
    source = open_field(write_netcdf(tmp_path / "f.nc", hot_wall), "v")
    np.testing.assert_array_equal(read_all(source)[0], hot_wall)
    assert len(source.facts.warnings) == 1
    assert "v is exactly 500 in 120 cells" in source.facts.warnings[0]
    assert "taken as data: if it stands for a missing value, give" in source.facts.warnings[0]


def test_two_undeclared_fill_values_are_found_behind_each_other():
    frame = FIELD[0].copy()
    frame[0, :3], frame[1, :4] = -9999, 1e20
    others = np.concatenate([frame[0, 3:], frame[1, 4:], frame[2:].ravel()])
    assert find_outliers(frame) == ({-9999: 3, float(np.float32(1e20)): 4}, others.min(), others.max())
    assert looks_like_fill(float(np.float32(1e20))) and not looks_like_fill(101325) and not looks_like_fill(99)


@pytest.mark.parametrize(("first", "second"), [
    (-9999, -8888), (-9999, -9998), (-32768, -32767), (9999, 9998), (-9999, 9999), (-8888, -9999)])
@pytest.mark.parametrize("is_alone", [False, True])
@pytest.mark.parametrize("factor", [1, 1000])
def test_undeclared_fill_values_near_each_other_do_not_hide_each_other(tmp_path, first, second, is_alone, factor):
    values = factor * with_gap(first / factor)
    values[:, 5, : 1 if is_alone else 4] = second
    cells = {first: "120", second: "20" if is_alone else "80"}
    low, high = sorted(cells)
    both = f"v is exactly {low} in {cells[low]} cells and {high} in {cells[high]} cells, far from all its other values"
    with pytest.raises(InputError, match=rf"{both} \(-.* to .*\); .* the attribute missing_value = {low}, {high};"):
        open_field(write_netcdf(tmp_path / "f.nc", values), "v")
    declared = {"missing_value": f"{low}, {high}"}  # as the message says
    found, valid = read_all(open_field(write_netcdf(tmp_path / "g.nc", values, declared), "v"))
    assert not valid[:, 5, 0].any() and not valid[GAP].any() and np.abs(found).max() <= factor


@pytest.mark.parametrize(("values", "words"), [
    ((-99, -98), "exactly -99 in 120 cells and -98 in 80 cells, far from all its other values"),
    ((500, 490, 480, 470), "exactly 470 in 80 cells and 480 in 80 cells and 490 in 80 cells and 500 in 120 cells")])
def test_other_values_far_out_that_are_near_each_other_are_told_together(tmp_path, values, words):
    field = with_gap(values[0])
    for row, value in enumerate(values[1:], 5):
        field[:, row, :4] = value
    source = open_field(write_netcdf(tmp_path / "f.nc", field), "v")
    assert len(source.facts.warnings) == 1 and words in source.facts.warnings[0]
    np.testing.assert_array_equal(read_all(source)[0], field)


@pytest.mark.parametrize("levels", [
    (0, 1, 100, 200), (0, 1, 2), (1, 2, 3, 4, 5, 300), (0, 10, 20, 30, 60, 61)])
def test_classes_and_steps_are_no_values_far_out(tmp_path, levels):
    values = np.array(levels, np.float32)[np.random.default_rng(1).integers(0, len(levels), (T, H, W))]
    warnings = open_field(write_netcdf(tmp_path / "f.nc", values), "v").facts.warnings
    assert len(warnings) == (300 in levels)  # as it has always been


def test_a_fill_value_beside_the_number_before_it_is_found_in_a_large_range(tmp_path):
    values = 1000 + 1000 * with_gap(8.999)
    values[:, 5, :4], values[:, 6, :4] = 9998, 9000
    assert find_outliers(np.delete(values[0], 6, 0))[0] == {9999: 6, 9998: 4}
    assert find_outliers(values[0])[0] == {}  # 9000 is no fill value, and not 10 ranges away


def test_what_is_found_only_later_is_refused_then(tmp_path, monkeypatch):
    """Of a very large field only some frames are looked at before the start."""
    monkeypatch.setattr(field_look, "MOST_BYTES", 4 * H * W * 4)  # frames 0, 5, 10, 15
    values = FIELD.copy()
    values[7, :2] = -9999
    source = open_field(write_netcdf(tmp_path / "f.nc", values), "v")
    assert source.facts.lines[-1] == "looked at: 4 of 20 frames"
    assert len(list(source.read(0, 7))) == 7
    with pytest.raises(InputError, match="v is exactly -9999 in 40 cells"):
        list(source.read(7, 8))
    values[7] = np.nan
    source = open_field(write_netcdf(tmp_path / "g.nc", values), "v")
    with pytest.raises(InputError, match=r"g\.nc: v has no valid value in frame 7"):
        list(source.read(7, 8))


@pytest.mark.parametrize(("value", "words"), [(1e-38, "too small for float32"), (1e300, "as large as 9.99e[+]299")])
def test_values_out_of_the_range_of_float32_are_refused(tmp_path, value, words):
    path = write_netcdf(tmp_path / "f.nc", FIELD.astype(np.float64) * value)
    with pytest.raises(InputError, match=words):
        open_field(path, "v")


def test_empty_frames_are_known_before_the_start(tmp_path):
    values = FIELD.copy()
    values[[0, 7, 8, 15]] = np.nan
    source = open_field(write_netcdf(tmp_path / "f.nc", values), "v")
    assert source.facts.empty == (0, 7, 8, 15) and source.facts.breaks == (1, 7, 8, 9, 15, 16)
    assert "no valid value in frames 0, 7..8, 15" in source.facts.warnings[0]
    with pytest.raises(InputError, match="no valid value in any frame .*6,400 cells by NaN"):
        open_field(write_netcdf(tmp_path / "g.nc", np.full_like(FIELD, np.nan)), "v")


def test_the_windows_of_a_data_set_end_at_an_empty_frame(tmp_path):
    values = np.concatenate([FIELD, FIELD])
    values[12] = np.nan
    path = write_netcdf(tmp_path / "f.nc", values)
    plan = plan_dataset(Recipe(field=path, variable="v", shards=4, out=tmp_path / "d"))
    assert plan.clips[0].layout.source.breaks == [12, 13]
    assert all(12 not in range(shard.start, shard.stop) for shard in plan.clips[0].shards)
    # training 0..11 and 13..26, validation 27..31, test 32..39, each without two frames at both ends
    assert sum(shard.num_samples for shard in plan.clips[0].shards) == 8 + 10 + 1 + 4


def bicubic(tmp_path, path, target="out.nc", **settings):
    """Upscale a field by the network that gives bicubic enlargement, and return the new variable."""
    source = open_field(path, "v")
    upscaler = untrained(ModelSettings("compact", "bicubic", width=2, blocks=1), **settings)
    work = FieldUpscaling.plan(UpscaleSettings(path, tmp_path / target, tmp_path), upscaler, source)
    work.make(range(1), upscaler, Progress(source.num_frames, "", "frame", shown=False))
    with xarray.open_dataset(tmp_path / target) as dataset:
        return dataset["v"].load()


def test_an_empty_frame_is_upscaled_to_an_empty_frame(tmp_path):
    values = FIELD.copy()
    values[[0, 7]] = np.nan
    out = bicubic(tmp_path, write_netcdf(tmp_path / "f.nc", values))
    assert np.isnan(out[[0, 7]]).all() and not np.isnan(out.values[1:7]).any() and not np.isnan(out.values[8:]).any()


@pytest.mark.parametrize("mean", [101325.0, -4.2e6])
def test_a_small_signal_on_a_large_mean_keeps_its_digits(tmp_path, mean):
    import cv2

    small = 1e-3 * FIELD.astype(np.float64)
    path = write_netcdf(tmp_path / "f.nc", mean + small)
    source = open_field(path, "v")
    assert source.offset == source.description["offset"] == pytest.approx(mean, abs=1e-3)
    found = read_all(source)[0]
    assert found.dtype == np.float32
    rounding = np.spacing(abs(mean)) + 1e-10
    np.testing.assert_allclose(found.astype(np.float64) + source.offset, mean + small, rtol=0, atol=rounding)
    plan = plan_dataset(Recipe(field=path, variable="v", shards=3, out=tmp_path / "d"))
    assert plan.clips[0].layout.source.offset == source.offset and "is subtracted" in format_plan(plan)
    # upscaled: in float64, for a network of the same data, and for one whose data had another or no mean
    expected = mean + cv2.resize(small[4], (2 * W, 2 * H), interpolation=cv2.INTER_CUBIC)
    for number, terms in enumerate([{"offset": -1e-3, "subtracted": source.offset},
                                    {"offset": 0.999, "subtracted": source.offset - 1}, {"offset": mean - 1e-3}]):
        out = bicubic(tmp_path, path, f"out_{number}.nc", extent=2e-3, **terms)
        assert out.dtype == np.float64
        np.testing.assert_allclose(out[4], expected, rtol=0, atol=2e-9)


@pytest.mark.parametrize("values", [
    (101325 + FIELD).astype(np.float32), 101325 + 1000 * FIELD.astype(np.float64),
    (101325 + 0.01 * FIELD).astype(np.float32).astype(np.float64),  # doubles that are floats: nothing is lost
    np.rint(1e6 + 10 * FIELD).astype(np.int32)])
def test_what_float32_holds_is_read_as_it_is(tmp_path, values):
    source = open_field(write_netcdf(tmp_path / "f.nc", values), "v")
    assert source.offset == 0 and "offset" not in source.description
    np.testing.assert_array_equal(read_all(source)[0], values.astype(np.float32))


def test_whole_numbers_above_24_bits_keep_their_digits(tmp_path):
    values = np.rint(1e9 + 1000 * FIELD).astype(np.int32)
    source = open_field(write_netcdf(tmp_path / "f.nc", values), "v")
    np.testing.assert_array_equal(read_all(source)[0].astype(np.float64) + source.offset, values)


@pytest.mark.parametrize(("chunk", "expected"), [(20, 1), (8, 3)])
def test_each_chunk_is_read_once(tmp_path, monkeypatch, chunk, expected):
    monkeypatch.setattr(field_values, "LEAST_BLOCK", 1)
    path = write_netcdf(tmp_path / "f.nc", FIELD, zlib=True, chunksizes=(chunk, H, W))
    read, read_block = [], field_values.read_block
    monkeypatch.setattr(field_values, "read_block", lambda *block: read.append(block[1]) or read_block(*block))
    source = open_field(path, "v")
    assert len(read) == expected and sum(map(len, read)) == T
    read.clear()
    for index in range(T):
        np.testing.assert_array_equal(next(source.read(index, index + 1))[0][0], FIELD[index])
    assert len(read) == expected - (expected == 1)  # a field of one block is still there


def test_the_memory_for_chunks_is_bounded_and_stays_on_its_rank(tmp_path, monkeypatch):
    monkeypatch.setattr(field_values, "LARGEST_BLOCK", 5 * 4 * H * W)
    path = write_netcdf(tmp_path / "f.nc", FIELD, chunksizes=(T, H, W))
    source = open_field(path, "v")
    assert source.block_bytes == 5 * 4 * H * W
    np.testing.assert_array_equal(read_all(source)[0], FIELD)
    assert len(pickle.dumps(source)) < 5 * 4 * H * W
