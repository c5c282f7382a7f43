"""Whole files written beside a field that is repeated twice: what readers find in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray

from hpc_vsr.media.field_sink import write_field
from hpc_vsr.media.field_source import open_field

T, Y, X = 3, 8, 12
ROWS, COLUMNS = np.mgrid[:Y, :X].astype(float)
FIELD = np.stack([np.sin((COLUMNS + step) / 2) * np.cos(ROWS / 3) for step in range(T)]).astype("f4")


def enlarge(path: Path, variable: str, change: Callable = lambda values: values, frames: range = range(T)
            ) -> tuple[Path, list[str]]:
    """Write the variable with each value four times; return the file, and what is left out."""
    source = open_field(path, variable)

    def frame(number: int) -> np.ndarray:
        values, valid = next(source.read(number, number + 1))
        return change((values[0] if valid is None else np.where(valid, values[0], np.nan)).repeat(2, 0).repeat(2, 1))

    out = path.with_name("out.nc")
    return out, write_field(out, source, frames, 2, frame, "enlarged", "mark")


def save(path: Path, dims: tuple, values: np.ndarray = FIELD, coords: dict | None = None, attrs: dict | None = None,
         encoding: dict | None = None, **others) -> Path:
    dataset = xarray.Dataset({"v": (dims, values, attrs or {}), **others}, coords or {})
    dataset["v"].encoding = encoding or {}
    dataset.to_netcdf(path)
    return path


def dangling(path: Path) -> set[str]:
    """Names in the attributes that name variables, without a variable of this name."""
    with netCDF4.Dataset(path) as file:
        found = set()
        for variable in file.variables.values():
            for key in ("coordinates", "bounds", "grid_mapping", "ancillary_variables", "cell_measures"):
                text = variable.__dict__.get(key, "")
                found |= {word for word in text.split() if not word.endswith(":")} - set(file.variables)
        return found


def test_the_transformation_agrees_with_the_coordinates(tmp_path):
    """Its origin is the outer corner: column 0.5 of the transformation is the first x."""
    path = save(tmp_path / "in.nc", ("time", "y", "x"), attrs={"grid_mapping": "spatial_ref"}, coords={
        "y": ("y", 4000 - 30.0 * np.arange(Y) - 15), "x": ("x", 600 + 31.0 * np.arange(X) + 15.5),
        "spatial_ref": ((), 0, {"GeoTransform": "600 31 0 4000 0 -30", "crs_wkt": "LOCAL_CS[]"})})
    with netCDF4.Dataset(path, "a") as file:
        file.DX, file.DY, file.geospatial_lat_resolution, file.grid_size = 31.0, 30.0, "30 m", "8x12"
    out, left_out = enlarge(path, "v")
    with xarray.open_dataset(out) as after:
        x0, dx, _, y0, _, dy = map(float, after["spatial_ref"].attrs["GeoTransform"].split())
        np.testing.assert_allclose(after["x"], x0 + dx * (np.arange(2 * X) + 0.5), rtol=0, atol=1e-9)
        np.testing.assert_allclose(after["y"], y0 + dy * (np.arange(2 * Y) + 0.5), rtol=0, atol=1e-9)
        assert (after.attrs["DX"], after.attrs["DY"]) == (15.5, 15.0)
        assert after.attrs["geospatial_lat_resolution"] == "15 m" and "grid_size" not in after.attrs
        assert after["spatial_ref"].attrs["crs_wkt"] == "LOCAL_CS[]"
    assert left_out == ["attribute grid_size"] and not dangling(out)


def test_areas_are_shared_masks_repeated_and_the_unknown_is_left_out(tmp_path):
    random = np.random.default_rng(0)
    areas, mask = random.random((Y, X)).astype("f4") + 99, random.integers(0, 2, (Y, X)).astype("i1")
    path = save(tmp_path / "in.nc", ("time", "YC", "XC"), attrs={
        "cell_measures": "area: cells volume: elsewhere", "ancillary_variables": "quality errors",
        "coordinates": "rA maskC height nowhere"}, coords={"YC": np.arange(Y) * 10.0, "XC": np.arange(X) * 10.0},
        rA=(("YC", "XC"), areas, {"units": "m2"}), maskC=(("YC", "XC"), mask), height=(("YC", "XC"), areas),
        cells=(("YC", "XC"), areas.astype("f8"), {"units": "furlong"}), errors=(("time", "YC", "XC"), FIELD),
        quality=(("YC", "XC"), mask, {"flag_values": np.array([0, 1], "i1"), "flag_meanings": "good bad"}))
    out, left_out = enlarge(path, "v")
    with xarray.open_dataset(out) as after:
        for name in ("rA", "cells"):
            np.testing.assert_allclose(after[name].values.reshape(Y, 2, X, 2).sum((1, 3)), areas, rtol=1e-6)
        for name in ("maskC", "quality"):
            assert after[name].dtype == np.int8 and np.array_equal(after[name], mask.repeat(2, 0).repeat(2, 1))
        assert after["v"].attrs["cell_measures"] == "area: cells"
        assert after["v"].attrs["ancillary_variables"] == "quality"
    assert not dangling(out)
    assert {"height", "errors", "attribute cell_measures of v", "attribute ancillary_variables of v"} == set(left_out)


@pytest.mark.parametrize("moves", [False, True])
def test_positions_that_are_repeated_in_time(tmp_path, moves):
    """As WRF writes them, across 180 degrees; once if they are the same at all times, else for each time."""
    north = 20 + 2.0 * ROWS + 0.1 * COLUMNS
    east = (174 + COLUMNS + 180) % 360 - 180
    dims, shift = ("Time", "south_north", "west_east"), 0.5 * moves * np.arange(T)[:, None, None]
    path = save(tmp_path / "in.nc", dims, attrs={"coordinates": "XLONG XLAT"},
                XLAT=(dims, north + shift, {"units": "degree_north"}),
                XLONG=(dims, np.stack([east] * T), {"units": "degree_east"}),
                XLAT_U=(("Time", "south_north", "west_east_stag"), np.zeros((T, Y, X + 1))))
    out, left_out = enlarge(path, "v", frames=range(1, T))
    fine_rows, fine_columns = np.mgrid[: 2 * Y, : 2 * X] / 2 - 0.25
    expected = 20 + 2 * fine_rows + 0.1 * fine_columns
    with xarray.open_dataset(out, decode_times=False) as after:
        assert after["XLAT"].dims == (dims if moves else dims[1:]) and {"XLAT", "XLONG"} <= set(after["v"].coords)
        np.testing.assert_allclose(after["XLAT"], expected + shift[1:] if moves else expected)
        fine = after["XLONG"].values
        np.testing.assert_allclose((fine - 174 - fine_columns + 180) % 360 - 180, 0, atol=1e-9)
        assert fine.min() >= -180 and fine.max() < 180
    assert left_out == ["XLAT_U"]


def test_corners_of_curvilinear_cells(tmp_path):
    points = np.mgrid[: Y + 1, : X + 1].astype(float)
    lat, lon = 40 + points[0] + 0.2 * points[1], 2 * points[1] - 0.3 * points[0]
    order = [(0, 0), (0, 1), (1, 1), (1, 0)]
    corners = [np.stack([one[row : row + Y, column : column + X] for row, column in order], -1) for one in (lat, lon)]
    dims = ("time", "j", "i")
    path = save(tmp_path / "in.nc", dims, attrs={"coordinates": "lat lon"}, coords={
        "lat": (dims[1:], corners[0].mean(-1), {"units": "degrees_north", "bounds": "lat_vertices"}),
        "lon": (dims[1:], corners[1].mean(-1), {"units": "degrees_east", "bounds": "lon_vertices"})},
        lat_vertices=((*dims[1:], "vertices"), corners[0]), lon_vertices=((*dims[1:], "vertices"), corners[1]))
    out, left_out = enlarge(path, "v")
    fine = np.mgrid[: 2 * Y + 1, : 2 * X + 1] / 2
    with xarray.open_dataset(out) as after:
        for name, one in (("lat", 40 + fine[0] + 0.2 * fine[1]), ("lon", 2 * fine[1] - 0.3 * fine[0])):
            expected = np.stack([one[row : row + 2 * Y, column : column + 2 * X] for row, column in order], -1)
            np.testing.assert_allclose(after[f"{name}_vertices"], expected, atol=1e-12)
            np.testing.assert_allclose(after[name], expected.mean(-1), atol=1e-12)
    assert not left_out and not dangling(out)


def test_readers_mask_no_value_that_is_there(tmp_path):
    """Limits in packed units, of the field and of a coordinate, would hide nearly all."""
    path = save(tmp_path / "in.nc", ("time", "lat", "lon"), 1e5 + FIELD, coords={
        "lat": ("lat", np.linspace(90, -90, Y), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(X) * 30.0, {"units": "degrees_east", "valid_min": 0.0, "valid_max": 360.0})},
        encoding={"dtype": "i2", "scale_factor": 1e-4, "add_offset": 1e5, "_FillValue": np.int16(-32768)})
    with netCDF4.Dataset(path, "a") as file:
        file["v"].valid_range, file["v"].actual_range = np.array([-32000, 32000], "i2"), np.array([1e5 - 1, 1e5 + 1])
        file["lat"].valid_range, file["lat"].actual_range = np.array([-90.0, 90.0]), np.array([90.0, -90.0])
    out, left_out = enlarge(path, "v", lambda values: values + 1)
    with netCDF4.Dataset(out) as file:
        values = file["v"][:]
        assert not np.ma.is_masked(values) and values.dtype == np.float32
        np.testing.assert_allclose(values[1], 1e5 + FIELD[1].repeat(2, 0).repeat(2, 1) + 1, atol=0.02)
        assert not {"scale_factor", "add_offset", "valid_range", "actual_range"} & set(file["v"].ncattrs())
        lat, lon = file["lat"][:], file["lon"][:]
        assert not np.ma.is_masked(lat) and not np.ma.is_masked(lon) and lon[0] == -7.5
        assert np.array_equal(file["lat"].valid_range, [-90, 90]) and "valid_min" not in file["lon"].ncattrs()
        assert np.array_equal(file["lat"].actual_range, [lat[0], lat[-1]]) and 89 > lat[0] > 80
    assert set(left_out) == {"attribute valid_range of v", "attribute actual_range of v", "attribute valid_min of lon"}


@pytest.mark.parametrize(("kind", "fill", "written"), [("missing_value", 1e20, 1e20), ("_FillValue", -9.0, -9.0),
                                                       ("_FillValue", 0.0, np.nan)])
def test_a_value_that_equals_the_fill_value_is_no_gap(tmp_path, kind, fill, written):
    values = FIELD + 2
    values[:, 0, 0] = np.nan
    path = save(tmp_path / "in.nc", ("time", "y", "x"), values, encoding={kind: np.float32(fill)} | (
        {"_FillValue": None} if kind == "missing_value" else {}))

    def change(frame: np.ndarray) -> np.ndarray:
        frame[5, 5] = fill
        return frame

    out, _ = enlarge(path, "v", change)
    with netCDF4.Dataset(out) as file:
        assert np.array_equal(file["v"]._FillValue, np.float32(written), equal_nan=True)
        file.set_auto_mask(False)
        found = file["v"][1]
        assert np.array_equal(found[:2, :2], np.full((2, 2), np.float32(written)), equal_nan=True)
    with xarray.open_dataset(out) as after:
        assert np.isnan(after["v"]).sum() == 4 * T
        np.testing.assert_allclose(after["v"][1, 5, 5], fill, rtol=1e-6)


def test_files_that_differ_in_what_lies_beside(tmp_path):
    """What differs between files lies along time; what one of them lacks is left out."""
    for number in range(2):
        save(tmp_path / f"in_{number}.nc", ("time", "y", "x"), coords={
            "time": np.arange(T) + 10.0 * number, "run": ((), 5.0 + number, {"units": "m"})},
            **({} if number else {"extra": ("time", np.zeros(T))}), levels=("z", np.arange(4.0) + number))
    out, left_out = enlarge(tmp_path / "in_*.nc", "v", frames=range(1, 5))
    with xarray.open_dataset(out) as after:
        np.testing.assert_array_equal(after["run"], [5, 5, 6, 6])
        np.testing.assert_array_equal(after["time"], [1, 2, 10, 11])
    assert set(left_out) == {"extra", "levels"}


def test_coordinates_without_numbers_or_order_are_left_out(tmp_path):
    path = save(tmp_path / "in.nc", ("time", "y", "x"), coords={
        "y": [f"row {row}" for row in range(Y)], "x": [3, 1, 2, *range(4, X + 1)]})
    out, left_out = enlarge(path, "v")
    with xarray.open_dataset(out) as after:
        assert after["v"].shape == (T, 2 * Y, 2 * X) and not {"x", "y"} & set(after.variables)
    assert set(left_out) == {"x", "y"}
