"""A finer grid: where the parts of cells lie, what becomes of areas, lengths and masks, and which attributes change."""

from __future__ import annotations

import numpy as np
import pytest

from hpc_vsr.media.field_attributes import Ends, rewrite
from hpc_vsr.media.field_classes import Described, Grid, class_of
from hpc_vsr.media.field_finer import Position, make_finer
from hpc_vsr.media.field_grid import Measure, find_corners, share_cells, split_axis, split_plane
from hpc_vsr.media.field_names import correct_names

NORTH, EAST = Measure(limit=90.0), Measure(period=360.0)
GRID = Grid("time", "y", "x", 3, 4, 2)


def corners_of(values: np.ndarray, order: list[tuple[int, int]]) -> np.ndarray:
    """The corners of cells from the (rows + 1, columns + 1) points between them."""
    rows, columns = (side - 1 for side in values.shape)
    return np.stack([values[row : row + rows, column : column + columns] for row, column in order], -1)


@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("has_bounds", [False, True])
def test_cells_centred_on_the_poles_end_there(parts, has_bounds):
    """A pole cell is half a cell wide: with 30 degrees between the centres, from 75 to 90."""
    centres = np.linspace(90, -90, 7)
    edges = np.r_[90, np.arange(75, -76, -30.0), -90]
    given = np.stack([edges[:-1], edges[1:]], 1) if has_bounds else None
    values, bounds = split_axis(centres, given, parts, NORTH)
    cells = zip(edges[:-1], edges[1:], strict=True)
    fine = np.r_[np.concatenate([np.linspace(a, b, parts, endpoint=False) for a, b in cells]), -90]
    np.testing.assert_allclose(values, (fine[1:] + fine[:-1]) / 2, atol=1e-12)
    if has_bounds:
        np.testing.assert_allclose(bounds, np.stack([fine[:-1], fine[1:]], 1), atol=1e-12)


def test_bounds_decide_where_the_edges_are_in_either_order():
    """Gaussian latitudes are not half way between their edges; the lower edge may come first on a descending axis."""
    centres, edges = np.array([88.0, 40.0, 1.0]), np.array([90.0, 60.0, 30.0, 0.0])
    for flipped in (False, True):
        given = np.stack([edges[1:], edges[:-1]] if flipped else [edges[:-1], edges[1:]], 1)
        values, bounds = split_axis(centres, given, 2, NORTH)
        np.testing.assert_allclose(values, [82.5, 67.5, 52.5, 37.5, 22.5, 7.5])
        assert ((bounds.min(1) < values) & (values < bounds.max(1))).all()
        assert (np.diff(bounds, axis=1) > 0).all() == flipped
        np.testing.assert_allclose(bounds[:2], [[75, 90], [60, 75]] if flipped else [[90, 75], [75, 60]])


def test_bounds_that_do_not_hold_their_centres_count_for_nothing():
    values, bounds = split_axis(np.array([0.0, 1.0, 2.0]), np.array([[5.0, 6.0], [6.0, 7.0], [7.0, 8.0]]), 2)
    np.testing.assert_allclose(values, [-0.25, 0.25, 0.75, 1.25, 1.75, 2.25])
    assert bounds is None


def test_longitudes_go_on_across_the_end_of_the_circle():
    """Of an axis they ascend; over rows and columns they stay between -180 and 180 if they were."""
    axis = np.array([176.0, 178.0, 180.0, -178.0])
    given = np.stack([axis - 1, np.where(axis == 180, -179.0, axis + 1)], 1)
    for bounds in (None, given):
        values, fine = split_axis(axis, bounds, 2, EAST)
        np.testing.assert_allclose(values, np.arange(175.5, 183, 1))
    np.testing.assert_allclose(fine, np.stack([np.arange(175, 183.0), np.arange(176, 184.0)], 1))
    plane = split_plane(np.tile(axis, (3, 1)), 2, EAST)
    np.testing.assert_allclose(plane, np.tile([175.5, 176.5, 177.5, 178.5, 179.5, -179.5, -178.5, -177.5], (6, 1)))
    np.testing.assert_allclose(split_plane(np.tile([0.0, 90, 180, 270], (2, 1)), 2, EAST)[0],
                               [-22.5, 22.5, 67.5, 112.5, 157.5, 202.5, 247.5, 292.5])


def test_a_missing_position_spoils_its_own_cell_alone():
    values = np.arange(5.0)
    values[2] = np.nan
    fine, _ = make_finer([Position("lat", ("y",), NORTH, values)], GRID)["lat"].values, None
    np.testing.assert_allclose(fine, [-0.25, 0.25, 0.75, 1.25, np.nan, np.nan, 2.75, 3.25, 3.75, 4.25])


@pytest.mark.parametrize("parts", [2, 3])
def test_around_a_pole_positions_are_split_on_the_globe(parts):
    """On a polar stereographic plane the parts of a cell are those of its square; a mean of longitudes is not."""
    def to_globe(x, y):
        return 90 - 2 * np.degrees(np.arctan(np.hypot(x, y) / 2)), np.degrees(np.arctan2(y, x))

    side = 0.002 * (np.arange(7) - 3.25)  # the pole lies beside a centre
    fine = (side[:, None] + 0.002 * ((np.arange(parts) + 0.5) / parts - 0.5)).ravel()
    lat, lon = to_globe(side[None, :], side[:, None])
    edges = np.r_[side - 0.001, side[-1] + 0.001]
    order = [(0, 0), (0, 1), (1, 1), (1, 0)]
    corners = [corners_of(one, order) for one in to_globe(edges[None, :], edges[:, None])]
    found = make_finer([Position("lat", ("y", "x"), NORTH, lat, bounds=corners[0]),
                        Position("lon", ("y", "x"), EAST, lon, bounds=corners[1])], Grid("t", "y", "x", 7, 7, parts))
    expected = to_globe(fine[None, :], fine[:, None])
    far = np.hypot(fine[None, :], fine[:, None]) > 1e-4
    np.testing.assert_allclose(found["lat"].values, expected[0], atol=1e-4)  # of cells of 0.1 degrees
    apart = (found["lon"].values - expected[1] + 180) % 360 - 180
    assert np.abs(apart * np.cos(np.radians(expected[0])))[far].max() < 1e-4
    assert found["lat"].bounds.shape == (7 * parts, 7 * parts, 4)
    np.testing.assert_allclose(found["lat"].bounds[0, 0, 0], corners[0][0, 0, 0])


@pytest.mark.parametrize("order", [[(0, 0), (0, 1), (1, 1), (1, 0)], [(1, 1), (1, 0), (0, 0), (0, 1)],
                                   [(0, 0), (1, 0), (1, 1), (0, 1)]])
def test_corners_are_found_in_every_order_and_parts_share_theirs(order):
    rows, columns = np.mgrid[:4, :5].astype(float)
    points = [40 + 2 * rows + 0.3 * columns, (356 + 2.0 * columns - 0.4 * rows) % 360]  # turned, across 0 degrees
    corners = [corners_of(one, order) for one in points]
    centres = [(EAST if place else NORTH).near(one, one[..., :1]).mean(-1) for place, one in enumerate(corners)]
    centres[1] %= 360
    assert find_corners(corners, [NORTH, EAST]) == [[order.index((a, b)) for b in (0, 1)] for a in (0, 1)]
    found = make_finer([Position(name, ("y", "x"), measure, centre, bounds=one) for name, measure, centre, one
                        in zip(("lat", "lon"), (NORTH, EAST), centres, corners, strict=True)], GRID)
    for name, one, point in zip(("lat", "lon"), corners, points, strict=True):
        measure = NORTH if name == "lat" else EAST
        fine = found[name].bounds
        place = {pair: order.index(pair) for pair in order}

        def same(first, second, measure=measure):
            np.testing.assert_allclose(measure.near(first, second), second, atol=1e-9)

        same(fine[:, :-1, place[0, 1]], fine[:, 1:, place[0, 0]])
        same(fine[:-1, :, place[1, 0]], fine[1:, :, place[0, 0]])
        same(fine[0, 0, place[0, 0]], point[0, 0])
        same(fine[-1, -1, place[1, 1]], point[-1, -1])
        same(fine[::2, ::2, place[0, 0]], one[..., place[0, 0]])
        near = measure.near(fine, found[name].values[..., None])
        assert (near.min(-1) <= found[name].values).all() and (found[name].values <= near.max(-1)).all()
    assert ((found["lon"].values >= 0) & (found["lon"].values < 360)).all()


def test_corners_that_neighbours_do_not_share_are_not_split():
    corners = np.random.default_rng(0).random((3, 4, 4))
    assert find_corners([corners, corners], [NORTH, EAST]) is None
    found = make_finer([Position(name, ("y", "x"), measure, corners.mean(-1), bounds=corners)
                        for name, measure in (("lat", NORTH), ("lon", EAST))], GRID)
    assert found["lat"].bounds is None and found["lat"].values.shape == (6, 8)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_sums_of_areas_stay_and_masks_have_the_same_values(scale):
    random = np.random.default_rng(0)
    areas, mask = random.random((3, 4)) + 1, random.integers(0, 3, (3, 4)).astype("i1")
    fine = share_cells(areas, (0, 1), scale, 2)
    assert fine.shape == (3 * scale, 4 * scale)
    np.testing.assert_allclose(fine.reshape(3, scale, 4, scale).sum((1, 3)), areas)
    lengths = share_cells(areas, (0, 1), scale, 1)  # along x: those of a row of parts are as long as the row
    np.testing.assert_allclose(lengths[::scale].reshape(3, 4, scale).sum(2), areas)
    repeated = share_cells(mask, (0, 1), scale)
    assert repeated.dtype == mask.dtype and set(np.unique(repeated)) == set(np.unique(mask))
    assert np.array_equal(repeated[scale - 1 :: scale, ::scale], mask)


CLASSES = [
    # name, dims, dtype, attributes, is a coordinate, kind and power
    ("lat", "y", "f4", {"units": "degrees_north"}, True, ("position", 0)),
    ("y", "y", "i4", {}, True, ("position", 0)),
    ("XLONG", "time y x", "f4", {"units": "degree_east"}, True, ("position", 0)),
    ("nav_lat", "y x", "f4", {}, False, ("position", 0)),
    ("ULAT", "y x", "f8", {"units": "degrees_north"}, False, ("unknown", 0)),
    ("anything", "y x", "f8", {"standard_name": "projection_x_coordinate"}, False, ("position", 0)),
    ("rA", "y x", "f4", {"units": "m2"}, True, ("share", 2)),
    ("areacello", "y x", "f4", {"units": "m2", "standard_name": "cell_area"}, False, ("share", 2)),
    ("TAREA", "y x", "f8", {"units": "centimeter^2"}, False, ("share", 2)),
    ("cell_solid_angle", "y x", "f8", {"units": "sr"}, True, ("share", 2)),
    ("VAR_SSO", "y x", "f4", {"units": "m2", "long_name": "variance of orography"}, True, ("unknown", 0)),
    ("dxF", "y x", "f4", {"units": "m"}, True, ("share", 1)),
    ("e1t", "y x", "f8", {"units": "m"}, False, ("share", 1)),
    ("HTN", "y x", "f8", {"units": "centimeters"}, False, ("share", 1)),
    ("dx", "x", "f8", {"units": "km"}, True, ("share", 1)),
    ("pm", "y x", "f8", {"units": "meter-1"}, False, ("share", -1)),
    ("dye", "y x", "f8", {"units": "kg m-3"}, False, ("unknown", 0)),
    ("dxC", "y xg", "f4", {"units": "m"}, True, ("unknown", 0)),
    ("maskC", "y x", "i1", {}, True, ("share", 0)),
    ("hFac", "z y x", "?", {}, True, ("share", 0)),
    ("mask_rho", "y x", "f8", {}, False, ("share", 0)),
    ("soil", "y x", "i4", {"flag_values": [1, 2], "flag_meanings": "a b"}, False, ("share", 0)),
    ("nobs", "y x", "i4", {}, True, ("unknown", 0)),
    ("elevation", "y x", "i2", {"units": "m"}, True, ("unknown", 0)),
    ("angle", "y x", "f8", {"units": "radians"}, False, ("unknown", 0)),
    ("station", "x", "U4", {}, True, ("unknown", 0)),
]


@pytest.mark.parametrize(("name", "dims", "dtype", "attrs", "is_coordinate", "expected"), CLASSES)
def test_the_class_of_a_variable(name, dims, dtype, attrs, is_coordinate, expected):
    found = class_of(Described(name, tuple(dims.split()), np.dtype(dtype), attrs, False, is_coordinate), GRID)
    assert (found.kind, found.power) == expected


def test_positions_of_another_grid_of_the_same_size_are_unknown():
    """The attribute coordinates of the field says which positions are its own."""
    other, own = (Described(name, ("y", "x"), np.dtype("f8"), {"units": "degrees_east"}) for name in ("TLONG", "ULONG"))
    assert class_of(other, GRID, (), {"ULONG"}).kind == "unknown"
    assert class_of(own, GRID, (), {"ULONG"}).kind == "position"


ATTRIBUTES = [
    # owner, name, before, after (None: left out)
    ("mapping", "GeoTransform", "10 0.1 0 50 0 -0.1 ", "10 0.05 0 50 0 -0.05"),
    ("mapping", "GeoTransform", "1 2 3", None),
    ("file", "DX", np.float32(10000), np.float32(5000)),
    ("file", "resolution", "1/4 degree", "1/8 degree"),
    ("file", "resolution", "0.25 x 0.5 degree", "0.125 x 0.25 degree"),
    ("file", "resolution", "T63", None),
    ("file", "resolution", "10 minutes", None),
    ("file", "spatial_resolution", "4.64 km", "2.32 km"),
    ("file", "time_coverage_resolution", "P1D", "P1D"),
    ("file", "geospatial_vertical_resolution", "10", "10"),
    ("file", "geospatial_lon_resolution", "30", "15"),
    ("file", "geospatial_lat_min", 10.0, 9.75),
    ("file", "geospatial_lat_max", 12.5, 12.5),
    ("file", "WEST-EAST_GRID_DIMENSION", np.int32(5), np.int32(9)),
    ("file", "SOUTH-NORTH_PATCH_END_UNSTAG", 3, 6),
    ("file", "BOTTOM-TOP_GRID_DIMENSION", 5, 5),
    ("file", "number_of_columns", 4, 8),
    ("file", "NCOLS", 90, None),
    ("file", "nominal_resolution", "100 km", None),
    ("file", "title", "a resolution of 30 m", "a resolution of 30 m"),
    ("field", "GRIB_Nx", 4, 8),
    ("field", "GRIB_Ny", 3, 6),
    ("field", "GRIB_numberOfPoints", 12, 48),
    ("field", "GRIB_iDirectionIncrementInDegrees", 1.0, 0.5),
    ("field", "GRIB_latitudeOfFirstGridPointInDegrees", 12.0, 12.25),
    ("field", "GRIB_longitudeOfLastGridPointInDegrees", 77.0, None),
    ("field", "GRIB_gridType", "regular_ll", "regular_ll"),
    ("field", "GRIB_gridType", "regular_gg", None),
    ("field", "valid_range", np.array([0, 100], "i2"), None),
    ("field", "actual_range", np.array([0.0, 1.0]), None),
    ("field", "STATISTICS_MAXIMUM", "7", None),
    ("field", "standard_name", "air_temperature", "air_temperature"),
    ("position", "resolution", 0.5, 0.25),
    ("position", "step", 0.5, 0.25),
]


@pytest.mark.parametrize(("owner", "name", "before", "after"), ATTRIBUTES)
def test_an_attribute_on_the_finer_grid(owner, name, before, after):
    ends = Ends({"lat": (12.0, 10.0), "lon": (0.0, 3.0)}, {"lat": (12.25, 9.75), "lon": (-0.25, 3.25)})
    kept, left_out = rewrite({name: before, "units": "m"}, owner, GRID, ends)
    assert kept.pop("units") == "m"
    assert kept == ({} if after is None else {name: after}) and left_out == ([name] if after is None else [])
    assert np.asarray(kept.get(name, after)).dtype == np.asarray(after).dtype


@pytest.mark.parametrize(("name", "before", "after"), [
    ("coordinates", "lat lon gone", "lat lon"), ("coordinates", "gone", None), ("grid_mapping", "gone", None),
    ("grid_mapping", "crs: lat lon", "crs: lat lon"), ("grid_mapping", "crs: lat gone", None),
    ("cell_measures", "area: gone", None), ("cell_measures", "area: gone volume: crs", "volume: crs"),
    ("ancillary_variables", "gone crs", "crs"), ("bounds", "gone", None),
    ("cell_methods", "time: mean (interval: 1 h) gone: mean", "time: mean (interval: 1 h)"),
    ("cell_methods", "area: time: mean where land", "area: time: mean where land"),
    ("formula_terms", "a: lat b: gone", None), ("grid", "native", "native"), ("long_name", "gone", "gone")])
def test_attributes_name_no_variable_that_is_not_there(name, before, after):
    kept, changed = correct_names({name: before}, {"lat", "lon", "crs", "time"}, {"lat", "lon", "crs", "time", "gone"})
    assert kept == ({} if after is None else {name: after}) and changed == ([name] if after != before else [])
