"""Order, repeats and gaps of a field's time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray

from hpc_vsr.media.field_source import open_field
from hpc_vsr.media.field_time import find_gaps, numbers_in_names
from hpc_vsr.system.errors import InputError


def write(path, stamps, units="hours since 2000-01-01", name="time", **attributes) -> Path:
    """Frames 0, 1, ..., each of one value."""
    values = np.arange(len(stamps), dtype=np.float32)[:, None, None] * np.ones((1, 8, 8), np.float32)
    more = {"units": units, **attributes} if units else attributes
    xarray.Dataset({"v": (("time", "y", "x"), values)}, {name: ("time", stamps, more)}).to_netcdf(path)
    return path


@pytest.mark.parametrize("stamps, units, line", [
    (np.arange(24) * 1.0, "hours since 2000-01-01", "24 steps of 1 hour from 2000-01-01T00:00"),
    (np.arange(24) * 0.25 + 0.5, "days since 2000-01-31", "24 steps of 6 hours from 2000-01-31T12:00"),
    (np.arange(12) * 0.5, "seconds since 2000-01-01 00:00:30", "12 steps of 0.5 seconds from 2000-01-01T00:00:30"),
    (np.cumsum([0, 31, 28, 31, 30]), "days since 2001-01-01", "5 steps of 28 days to 31 days from 2001-01-01T00:00"),
    (np.arange(24) + 0.5, "months since 1960-01-01", "24 steps of 1 from 0.5 in months since 1960-01-01"),
    (np.arange(24) * 6, "hours since analysis", "24 steps of 6 hours from 0 in hours since analysis"),
    (np.arange(24) * 0.1, "", "24 steps of 0.1 from 0.0 by time, which has no unit"),
    ([20000130.5, 20000131.5, 20000201.5, 20000202.5, 20000203.5], "day as %Y%m%d.%f",
     "5 steps of 1 day from 2000-01-30T12:00"),
    (np.arange(24)[::-1] * 1.0, "hours since 2000-01-01", "24 steps of 1 hour from 2000-01-01T23:00, backwards")])
def test_time_is_told(tmp_path, stamps, units, line):
    """Also if its units cannot be decoded."""
    source = open_field(write(tmp_path / "f.nc", stamps, units), "v")
    assert source.facts.lines[0] == f"time: {line}" and not source.facts.breaks
    assert [float(frame[0, 0, 0]) for frame, _ in source.read(0, len(stamps))] == list(range(len(stamps)))
    assert bool(source.facts.warnings) == ("backwards" in line)


def test_a_calendar_of_360_days_has_a_30th_of_february(tmp_path):
    path = write(tmp_path / "f.nc", np.arange(5.0), "days since 2000-02-29", calendar="360_day")
    assert open_field(path, "v").facts.lines[0] == "time: 5 steps of 1 day from 2000-02-29T00:00"
    path = write(tmp_path / "g.nc", np.arange(5.0), "months since 2000-02-29", calendar="360_day")
    assert open_field(path, "v").facts.breaks == ()


def test_a_gap_ends_windows(tmp_path):
    stamps = np.r_[np.arange(12), np.arange(12) + 40.0]
    facts = open_field(write(tmp_path / "f.nc", stamps), "v").facts
    assert facts.breaks == (12,) and facts.lines[0].endswith("of 1 hour from 2000-01-01T00:00, 1 gap")
    assert list(facts.warnings) == ["time has 1 gap: 29 hours before frame 12 (2000-01-01T11:00 to 2000-01-02T16:00); "
                                    "no window crosses a gap"]


def test_gaps_are_where_steps_are_longer_than_their_neighbours():
    hours = np.ones(60)
    for gap in (0, 30, 59):
        steps = hours.copy()
        steps[gap] = 2
        assert list(find_gaps(steps)) == [gap]
    assert not len(find_gaps(np.r_[np.ones(20), 24 * np.ones(20)]))  # another cadence
    assert not len(find_gaps(1.1 ** np.arange(60)))  # a step that a model lets grow
    nights = np.tile([1.0] * 7 + [17.0], 8)
    np.testing.assert_array_equal(find_gaps(nights), np.arange(7, 64, 8))


def test_irregular_times_are_told_and_have_no_gaps(tmp_path):
    stamps = np.cumsum(np.random.default_rng(0).exponential(size=60) + 0.01)
    facts = open_field(write(tmp_path / "f.nc", stamps), "v").facts
    assert facts.breaks == () and "steps of time are irregular" in facts.warnings[0]
    facts = open_field(write(tmp_path / "g.nc", np.cumsum([1.0] * 20 + [24.0] * 20)), "v").facts
    assert facts.breaks == () and "the steps of time differ, 1 hour to 1 day" in facts.warnings[0]


@pytest.mark.parametrize("stamps, words", [
    ([0, 1, 2, 2, 3, 4], "time is 2000-01-01T02:00 in frames 2 and 3; write the frames in order of time, each once"),
    ([0, 1, 2, 3, 1, 2], "time goes back from 2000-01-01T03:00 to 2000-01-01T01:00 at frame 4"),
    ([0, 1, 2, np.nan, 4, 5], "time has no value at frame 3"),
    ([0, 1, 2, 3, 9.969209968386869e36, 5], "time has no value at frame 4")])
def test_frames_out_of_order_are_refused_with_their_place(tmp_path, stamps, words):
    with pytest.raises(InputError, match=words):
        open_field(write(tmp_path / "f.nc", np.array(stamps, np.float64)), "v")


def test_stamps_beside_the_dimension_count(tmp_path):
    """Texts, as WRF writes them, and a coordinate of another name."""
    times = np.array([f"2005-08-28_{hour:02d}:00:00" for hour in (0, 1, 2, 3, 4, 9, 10, 11, 12, 13)], "S19")
    facts = open_field(write(tmp_path / "f.nc", times, None, "Times"), "v").facts
    assert facts.breaks == (5,) and facts.lines[0] == "time: 10 steps of 1 hour from 2005-08-28T00:00, 1 gap"
    facts = open_field(write(tmp_path / "g.nc", [0.0, 60, 120, 180], "minutes since 2005-08-28", "XTIME"), "v").facts
    assert facts.lines[0] == "time: 4 steps of 1 hour from 2005-08-28T00:00"
    with pytest.raises(InputError, match="Times goes back from 2005-08-28T03:00 to 2005-08-28T01:00 at frame 1"):
        open_field(write(tmp_path / "h.nc", times[[3, 1, 2]], None, "Times"), "v")


def test_files_that_count_from_different_moments_are_compared_by_date(tmp_path):
    write(tmp_path / "a.nc", np.arange(6), "hours since 2000-01-01")
    write(tmp_path / "b.nc", np.arange(6) / 24, "days since 2000-01-01 06:00", calendar="proleptic_gregorian")
    assert open_field(tmp_path / "*.nc", "v").facts.lines[0] == "time: 12 steps of 1 hour from 2000-01-01T00:00"
    write(tmp_path / "c.nc", np.arange(6), "hours since 2000-01-01 20:00")
    assert open_field(tmp_path / "*.nc", "v").facts.breaks == (12,)
    write(tmp_path / "c.nc", np.arange(6), "hours since 2000-01-01 02:00")
    with pytest.raises(InputError, match=r"c\.nc: starts at time 2000-01-01T02:00, before the previous file ends "
                                         r"\(2000-01-01T11:00\)"):
        open_field(tmp_path / "*.nc", "v")
    write(tmp_path / "c.nc", np.arange(6), "months since 2000-01-01")
    with pytest.raises(InputError, match=r"c\.nc: time is months since .* but in the file before it hours since"):
        open_field(tmp_path / "*.nc", "v")


def step_file(path, number, **scalars) -> None:
    """One frame without a dimension of time, of the value of its number."""
    xarray.Dataset({"rho": (("y", "x"), np.full((8, 8), number, np.float32)),
                    **{name: ((), *value) for name, value in scalars.items()}}).to_netcdf(path)


def test_a_file_for_each_step_is_a_frame(tmp_path):
    for number in (*range(7), *range(9, 16)):
        step_file(tmp_path / f"step_{number}.nc", number)
    source = open_field(tmp_path / "step_*.nc", "rho")
    assert [float(frame[0, 0, 0]) for frame, _ in source.read(0, 14)] == [*range(7), *range(9, 16)]
    assert source.description["dimensions"] == ["time", "y", "x"] and source.facts.breaks == (7,)
    assert "14 files, from step_0.nc to step_15.nc" in source.facts.lines
    assert "a file is missing between step_6.nc and step_9.nc" in source.facts.warnings[0]


def test_the_time_beside_each_frame_is_written_along_time(tmp_path):
    """As is whatever else counts the files; what is the same in all stays one value."""
    from hpc_vsr.media.field_sink import write_field

    for number in range(6):
        step_file(tmp_path / f"step_{number}.nc", number, iteration=(100 * number,), viscosity=(0.5,),
                  time=(0.25 * number, {"units": "days since 2000-01-01"}),
                  start=(7.0, {"units": "days since 2000-01-01", "standard_name": "forecast_reference_time"}))
    source = open_field(tmp_path / "step_*.nc", "rho")
    assert source.facts.lines[0] == "time: 6 steps of 6 hours from 2000-01-01T00:00"
    write_field(tmp_path / "out.nc", source, range(1, 6), 2, lambda number: np.full((16, 16), number, np.float32),
                "test", "mark")
    with xarray.open_dataset(tmp_path / "out.nc", decode_times=False) as after:
        assert after["rho"].dims == ("time", "y", "x") and after["viscosity"].dims == ()
        np.testing.assert_array_equal(after["time"], np.arange(1, 6) / 4)
        np.testing.assert_array_equal(after["iteration"], 100 * np.arange(1, 6))
        np.testing.assert_array_equal(after["rho"][:, 3, 3], np.arange(1, 6))
    step_file(tmp_path / "step_6.nc", 6, iteration=(100 * number,), viscosity=(0.5,), start=(7.0,),
              time=(0.25, {"units": "days since 2000-01-01"}))
    with pytest.raises(InputError, match=r"step_6\.nc: starts at time 2000-01-01T06:00, before the previous file ends"):
        open_field(tmp_path / "step_*.nc", "rho")


@pytest.mark.parametrize("names, expected", [
    (["u_2.nc", "u_10.nc", "u_11.nc"], [2, 10, 11]),
    (["u_20000131.nc", "u_20000201.nc", "u_20000203.nc"], [0, 1, 3]),
    (["u_199912.nc", "u_200001.nc", "u_200003.nc"], [0, 1, 3]),
    (["run3_u1.nc", "run3_u2.nc"], [1, 2]),
    (["u_1_2.nc", "u_2_3.nc"], None),
    (["u_2000013123.nc", "u_2000020100.nc"], None),
    (["u_1.nc", "v_2.nc"], None)])
def test_numbers_in_names_count(names, expected):
    found = numbers_in_names(names)
    if expected is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found - found[0], np.array(expected) - expected[0])
