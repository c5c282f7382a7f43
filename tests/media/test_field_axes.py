"""Which dimension of a field is time, which are the frame, and what is chosen of the others."""

from __future__ import annotations

import numpy as np
import pytest
import xarray

from hpc_vsr.media.field_axes import kind_of_name
from hpc_vsr.media.field_sink import write_field
from hpc_vsr.media.field_source import FieldSource, list_variables, open_field
from hpc_vsr.system.errors import InputError

STEPS, LEVELS, HEIGHT, WIDTH = 6, 3, 8, 10
HOURS = ("time", np.arange(STEPS) * 1.0, {"units": "hours since 2000-01-01"})


def value(time, level, row, column):
    """The value of each place, so that an exchange of dimensions shows."""
    return 1000.0 * time + 100.0 * level + row + 0.0625 * column


def cube(*order: str, levels: int = 1) -> np.ndarray:
    """Values with dimensions in an order of t, z, y, x."""
    sizes = {"t": STEPS, "z": levels, "y": HEIGHT, "x": WIDTH}
    grid = np.meshgrid(*(np.arange(sizes[name]) for name in order), indexing="ij")
    places = {**{name: 0 for name in sizes}, **dict(zip(order, grid, strict=True))}
    return value(*(places[name] for name in "tzyx")).astype(np.float32)


def write(path, dims, values, coords=None, name="v", **attributes):
    xarray.Dataset({name: (dims, values, {"units": "K", **attributes})}, coords or {}).to_netcdf(path)
    return path


def frames(source: FieldSource) -> np.ndarray:
    return np.stack([frame[0] for frame, _ in source.read(0, source.num_frames)])


def enlarge(source: FieldSource, path, scale: int = 2) -> xarray.Dataset:
    """Write what an upscaling would, with each value repeated."""
    def frame(number: int) -> np.ndarray:
        return next(source.read(number, number + 1))[0][0].repeat(scale, 0).repeat(scale, 1)

    write_field(path, source, range(source.num_frames), scale, frame, "test", "mark")
    return xarray.open_dataset(path, decode_times=False)


@pytest.mark.parametrize("time, coords", [
    ("time", {"time": HOURS}),
    ("t", {}),
    ("hour_number", {"hour_number": ("hour_number", np.arange(STEPS), {"standard_name": "time"})}),
    ("phase", {"phase": ("phase", np.arange(STEPS), {"axis": "T"})}),
    ("n", {"n": ("n", np.arange(STEPS), {"units": "days since 1999-12-31"})}),
    ("n", {"lat": np.arange(HEIGHT), "lon": np.arange(WIDTH)})])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_time_is_found_wherever_it_is(tmp_path, time, coords, place):
    dims, order = ["lat", "lon"], ["y", "x"]
    dims.insert(place, time), order.insert(place, "t")
    source = open_field(write(tmp_path / "f.nc", dims, cube(*order), coords), "v")
    assert source.description["dimensions"] == [time, "lat", "lon"]
    np.testing.assert_array_equal(frames(source), cube("t", "y", "x"))
    assert any("in the file, read as" in line for line in source.facts.lines) == (place > 0)


def test_a_field_with_time_last_is_enlarged_with_time_first(tmp_path):
    source = open_field(write(tmp_path / "f.nc", ("lat", "lon", "time"), cube("y", "x", "t"), {"time": HOURS}), "v")
    with enlarge(source, tmp_path / "out.nc") as after:
        assert after["v"].dims == ("time", "lat", "lon")
        np.testing.assert_array_equal(after["v"], cube("t", "y", "x").repeat(2, 1).repeat(2, 2))
        np.testing.assert_array_equal(after["time"], np.arange(STEPS))


@pytest.mark.parametrize("order", ["tzyx", "ztyx", "tyxz", "yxtz"])
def test_a_level_is_chosen_by_its_value(tmp_path, order):
    names = {"t": "time", "z": "level", "y": "lat", "x": "lon"}
    dims, levels = [names[name] for name in order], [850.0, 500.0, 250.0]
    path = write(tmp_path / "f.nc", dims, cube(*order, levels=LEVELS), {"time": HOURS, "level": levels})
    with pytest.raises(InputError, match=r"f\.nc: v has several values of level \(850, 500, 250\); choose one, such as "
                                         "--select level=850"):
        open_field(path, "v")
    source = open_field(path, "v", "level=500")
    np.testing.assert_array_equal(frames(source), cube("t", "y", "x") + 100)
    assert source.description["selection"] == {"level": 500.0}
    assert "level=500 of 850, 500, 250" in source.facts.lines
    with enlarge(source, tmp_path / "out.nc") as after:
        assert after["v"].dims == ("time", "lat", "lon") and float(after["level"]) == 500
        np.testing.assert_array_equal(after["v"], (cube("t", "y", "x") + 100).repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("select, words", [
    ("level=600", "level=600: level has no such value; the nearest are 500 and 850"),
    ("level=low", "level=low: level has numbers: 850, 500, 250"),
    ("depth=3", r"v has no further dimension depth; it has dimensions \(time: 6, level: 3, lat: 8, lon: 10\)"),
    ("level", "give a value for each dimension, such as level=500,number=0"),
    ("level=500,level=850", "gives level twice")])
def test_a_choice_that_cannot_be_made_is_refused(tmp_path, select, words):
    path = write(tmp_path / "f.nc", ("time", "level", "lat", "lon"), cube(*"tzyx", levels=LEVELS),
                 {"time": HOURS, "level": [850.0, 500.0, 250.0]})
    with pytest.raises(InputError, match=words):
        open_field(path, "v", select)


def test_several_are_chosen_and_one_along_another_name(tmp_path):
    values = np.stack([cube(*"tzyx", levels=LEVELS), 7 + cube(*"tzyx", levels=LEVELS)])
    coords = {"level": np.array([0.1, 0.2, 0.3], np.float32), "wavelength": ("band", [450, 700]), "time": HOURS}
    path = write(tmp_path / "f.nc", ("band", "time", "level", "lat", "lon"), values, coords)
    with pytest.raises(InputError, match=r"band \(0, 1\) and several values of level \(0.1, 0.2, 0.3\); .* --select "
                                         "band=0,level=0.1"):
        open_field(path, "v")
    for select in ("level=0.3,wavelength=700", "band=1,level=0.3"):
        np.testing.assert_array_equal(frames(open_field(path, "v", select)), cube("t", "y", "x") + 207)


def test_names_are_chosen_as_text(tmp_path):
    path = write(tmp_path / "f.nc", ("species", "time", "y", "x"), np.stack([cube(*"tyx"), -cube(*"tyx")]),
                 {"species": ["CO2", "CH4"]})
    np.testing.assert_array_equal(frames(open_field(path, "v", "species=CH4")), -cube("t", "y", "x"))
    with pytest.raises(InputError, match="has no such value; it has CO2, CH4"):
        open_field(path, "v", "species=O2")


@pytest.mark.parametrize("name, attributes", [
    ("level", {}), ("number", {}), ("member", {}), ("band", {}), ("isobaricInhPa", {}), ("soil_layer", {}),
    ("k2", {"positive": "down"}), ("k2", {"units": "hPa"}), ("k2", {"axis": "Z"}),
    ("k2", {"standard_name": "atmosphere_hybrid_sigma_pressure_coordinate"}), ("k2", {"standard_name": "realization"})])
def test_levels_members_and_bands_are_no_frames(tmp_path, name, attributes):
    """Whether there is a time of one step, or none at all."""
    coords = {name: (name, np.arange(LEVELS) + 5.0, attributes)}
    path = write(tmp_path / "a.nc", (name, "lat", "lon"), cube(*"zyx", levels=LEVELS), coords)
    with pytest.raises(InputError, match=rf"several values of {name} \(5, 6, 7\).* --select {name}=5; if the steps of "
                                         f"{name} are frames, rename it to time"):
        open_field(path, "v")
    path = write(tmp_path / "b.nc", ("time", name, "lat", "lon"), cube(*"zyx", levels=LEVELS)[None], coords)
    with pytest.raises(InputError, match=rf"several values of {name} \(5, 6, 7\)"):
        open_field(path, "v")
    np.testing.assert_array_equal(frames(open_field(path, "v", f"{name}=6")), cube("y", "x")[None] + 100)


def test_the_steps_of_one_forecast_are_frames(tmp_path):
    coords = {"time": ("time", [0.0], {"units": "hours since 2000-01-01", "standard_name": "forecast_reference_time"}),
              "step": ("step", np.arange(STEPS) * 3.0, {"units": "hours", "standard_name": "forecast_period"})}
    source = open_field(write(tmp_path / "f.nc", ("time", "step", "lat", "lon"), cube(*"tyx")[None], coords), "v")
    np.testing.assert_array_equal(frames(source), cube("t", "y", "x"))
    assert source.facts.lines[0] == "time: 6 steps of 3 hours from 0.0 in hours"
    with enlarge(source, tmp_path / "out.nc") as after:
        assert after["v"].squeeze("time").dims == ("step", "lat", "lon")


def test_a_section_through_the_height_is_a_frame(tmp_path):
    coords = {"time": HOURS, "level": np.arange(LEVELS) + 1.0}
    path = write(tmp_path / "f.nc", ("time", "level", "lat", "lon"), cube(*"tzyx", levels=LEVELS), coords)
    source = open_field(path, "v", "lat=4")
    assert source.description["dimensions"] == ["time", "level", "lon"]
    np.testing.assert_array_equal(frames(source), cube(*"tzx", levels=LEVELS) + 4)
    path = write(tmp_path / "section.nc", ("time", "z", "x"), cube(*"tzx", levels=LEVELS))
    np.testing.assert_array_equal(frames(open_field(path, "v")), cube(*"tzx", levels=LEVELS))


def test_dimensions_without_known_names_are_time_rows_and_columns(tmp_path):
    source = open_field(write(tmp_path / "f.nc", ("a", "b", "c"), cube(*"tyx")), "v")
    assert source.description["dimensions"] == ["a", "b", "c"]
    np.testing.assert_array_equal(frames(source), cube("t", "y", "x"))
    with pytest.raises(InputError, match=r"several values of b \(0, 1, 2\)"):
        open_field(write(tmp_path / "g.nc", ("a", "b", "c", "d"), cube(*"tzyx", levels=LEVELS)), "v")
    with pytest.raises(InputError, match=r"\(lat: 8, a: 10, b: 6\), and none of them is known as time"):
        open_field(write(tmp_path / "h.nc", ("lat", "a", "b"), cube(*"yxt")), "v")


def test_pictures_have_height_and_width(tmp_path):
    source = open_field(write(tmp_path / "f.nc", ("n", "height", "width"), cube(*"tyx")), "v")
    np.testing.assert_array_equal(frames(source), cube("t", "y", "x"))


def test_a_line_or_a_point_in_time_is_no_field(tmp_path):
    path = write(tmp_path / "f.nc", ("time", "x"), cube("t", "x"), {"time": HOURS})
    with pytest.raises(InputError, match=r"v has dimensions \(time: 6, x: 10\); it must hold numbers"):
        open_field(path, "v")
    with pytest.raises(InputError, match=r"time is float64 with dimensions \('time',\)"):
        open_field(path, "time")


def test_a_variable_that_needs_no_choice_is_found_alone(tmp_path):
    xarray.Dataset({"t": (("time", "level", "lat", "lon"), cube(*"tzyx", levels=LEVELS)),
                    "ps": (("time", "lat", "lon"), cube(*"tyx")), "orography": (("lat", "lon"), cube("y", "x")),
                    "corners": (("lat", "lon", "corner"), np.zeros((HEIGHT, WIDTH, 4)))},
                   {"lat": ("lat", np.arange(HEIGHT), {"bounds": "corners"})}).to_netcdf(tmp_path / "f.nc")
    assert list_variables(tmp_path / "f.nc") == ["ps"]
    assert open_field(tmp_path / "f.nc").channels == ("ps",)


def test_lengths_of_time_are_numbers_as_others(tmp_path):
    """Such as the age of ice, whose unit is no reason to take it for a time."""
    path = write(tmp_path / "f.nc", ("time", "lat", "lon"), cube(*"tyx"), {"time": HOURS}, units="days")
    np.testing.assert_array_equal(frames(open_field(path, "v")), cube("t", "y", "x"))


@pytest.mark.parametrize("kind, names", {
    "time": ["time", "Time", "t", "time_counter", "ocean_time", "valid_time", "frame", "timestep", "XTIME", "time0",
             "initial_time0_hours", "sim_time", "nt", "year", "month"],
    "lead": ["step", "lead_time", "forecast_hour", "prediction_timedelta"],
    "z": ["z", "lev", "level", "plev", "lv_ISBL0", "isobaricInhPa", "bottom_top", "deptht", "s_rho", "Z", "zlev", "z_t",
          "pressure_level", "st_ocean", "heightAboveGround", "nlev", "height", "hybrid_1", "altitude"],
    "y": ["y", "lat", "latitude", "south_north", "eta_rho", "nlat", "rlat", "lat_0", "g0_lat_1", "YC", "yh", "yt_ocean",
          "j", "nj", "y_psi", "row", "northing", "nav_lat", "south_north_stag"],
    "x": ["x", "lon", "longitude", "west_east", "xi_rho", "nlon", "rlon", "lon_0", "g0_lon_2", "XC", "xq", "xu_ocean",
          "i", "ni", "x_psi", "col", "columns", "easting", "west_east_stag"],
    "other": ["number", "member", "ensemble", "realization", "band", "channel", "wavelength", "ens_member"],
    "": ["phony_dim_0", "dim_1", "a", "phase", "station"]}.items())
def test_dimensions_are_known_by_the_names_that_models_give_them(kind, names):
    assert {name: kind_of_name(name) for name in names} == dict.fromkeys(names, kind)
