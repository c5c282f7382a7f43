"""Frames by number: exact, whatever the container does."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
import xarray
from patterns import moving_pattern
from repository import SAMPLE
from videos import write_video

from hpc_vsr.media.colour import select_channels
from hpc_vsr.media.image_source import open_images
from hpc_vsr.media.video_source import open_video
from hpc_vsr.system.errors import InputError


def decode_all(path) -> np.ndarray:
    """Y of all frames by plain sequential decoding: the luma planes, stretched from 16..235 to 0..255."""
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            plane = np.frombuffer(frame.planes[0], np.uint8).reshape(-1, frame.planes[0].line_size)
            frames.append(plane[: frame.height, : frame.width].astype(float))
    return np.clip(np.rint((np.stack(frames) - 16) * 255 / 219), 0, 255)


def read(source, start, stop) -> np.ndarray:
    return np.stack([frame for frame, _ in source.read(start, stop)])


VARIANTS = {
    "b_frames": {"gop": 12, "b_frames": 3},
    "one_key_frame": {"gop": 250, "b_frames": 2},
    "all_key_frames": {"codec": "ffv1", "suffix": ".mkv"},
    "mpeg2": {"codec": "mpeg2video", "suffix": ".mpg"},
    "odd_size": {"pixel_format": "yuv444p", "size": (45, 63)},
    "open_mkv": {"gop": 8, "suffix": ".mkv"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_range_of_frames_equals_the_same_frames_of_a_whole_decode(tmp_path, variant):
    options = dict(VARIANTS[variant])
    height, width = options.pop("size", (48, 64))
    path = tmp_path / f"clip{options.pop('suffix', '.mp4')}"
    write_video(path, moving_pattern(40, height, width), **options)
    source = open_video(path)
    whole = read(source, 0, source.num_frames)
    expected = decode_all(path)
    assert len(whole) == len(expected) == 40 and whole.shape[1:] == (1, height, width)
    np.testing.assert_array_equal(whole[:, 0], expected)
    for start, stop in [(0, 1), (11, 14), (12, 13), (23, 37), (39, 40)]:
        np.testing.assert_array_equal(read(source, start, stop), whole[start:stop])


def test_a_clip_that_was_trimmed_without_encoding_has_the_frames_that_are_shown(tmp_path):
    """An edit list leaves out frames that the file still holds and counts."""
    whole = write_video(tmp_path / "whole.mp4", moving_pattern(40, 48, 64), gop=40, b_frames=0)
    trimmed = tmp_path / "trimmed.mp4"
    with av.open(str(whole)) as source, av.open(str(trimmed), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate(packet for packet in source.demux(source.streams.video[0]) if packet.size):
            step = packet.duration
            packet.pts = packet.dts = (index - 5) * step  # the first five lie before zero
            packet.stream = stream
            target.mux(packet)
    shown = len(decode_all(trimmed))
    source = open_video(trimmed)
    assert source.num_frames == shown
    assert len(read(source, 0, shown)) == shown


def test_key_frames_that_do_not_start_a_picture_are_passed_over(tmp_path):
    """With intra refresh a stream has recovery points where other streams have key frames."""
    path = tmp_path / "refresh.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.options = {"x264-params": "intra-refresh=1:keyint=20:bframes=0", "threads": "1"}
        for index, rgb in enumerate(moving_pattern(90, 48, 64)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    source = open_video(path)
    assert source.num_frames == 90
    whole = read(source, 0, 90)
    for start, stop in [(30, 40), (70, 90), (89, 90)]:
        np.testing.assert_array_equal(read(source, start, stop), whole[start:stop])


@pytest.mark.parametrize("matrix, weights", [("ITU709", (0.2126, 0.7152, 0.0722)), ("ITU601", (0.299, 0.587, 0.114))])
@pytest.mark.parametrize("colour_range", ["MPEG", "JPEG"])
def test_matrix_and_range_are_honoured(tmp_path, matrix, weights, colour_range):
    """A flat colour comes back as that colour, whichever way it was stored and tagged."""
    colour = np.array([200, 90, 40], np.uint8)
    red, green, blue = colour / 255
    kr, kg, kb = weights
    luma = kr * red + kg * green + kb * blue
    planes = np.array([luma, (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))])
    stored = planes * [219, 224, 224] + [16, 128, 128] if colour_range == "MPEG" else planes * 255 + [0, 128, 128]
    matrix_code, range_code = {"ITU709": 1, "ITU601": 6}[matrix], {"MPEG": 1, "JPEG": 2}[colour_range]
    path = tmp_path / "flat.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix_code, range_code
        for index in range(20):
            planar = np.broadcast_to(np.rint(stored).astype(np.uint8)[:, None, None], (3, 32, 32))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(planar), format="yuv444p")
            frame.colorspace, frame.color_range = matrix_code, range_code
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    source = open_video(path, "rgb")
    assert source.description["colour_range"] == {"MPEG": "limited", "JPEG": "full"}[colour_range]
    assert source.description["colour_matrix"] == matrix
    found = read(source, 3, 4)[0]
    assert np.abs(found - colour[:, None, None].astype(float)).max() <= 2
    expected = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    assert np.abs(read(open_video(path, "y"), 3, 4) - expected).max() <= 2


def test_y_from_colours_has_no_bias():
    """Y by way of RGB, as of other matrices and packed formats, against the luma plane that this file has.

    swscale's default is 1.4 levels too dark.
    """
    source = open_video(SAMPLE)
    luma = read(source, 0, 1)[0, 0].astype(float)
    colours = read(open_video(SAMPLE, "rgb"), 0, 1)[0]
    difference = select_channels(colours.transpose(1, 2, 0), "y")[0] - luma
    assert source.description["luma"] == "as coded"
    assert abs(difference.mean()) < 0.05 and np.abs(difference).mean() < 0.4


def test_luma_is_opencvs():
    rgb = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    expected = cv2.cvtColor(rgb[..., ::-1].copy(), cv2.COLOR_BGR2YCrCb)[..., 0]
    np.testing.assert_array_equal(select_channels(rgb, "y")[0], expected)
    np.testing.assert_array_equal(select_channels(rgb, "rgb"), rgb.transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_images_come_in_natural_order(tmp_path, suffix):
    for number in (10, 9, 100, 1):
        cv2.imwrite(str(tmp_path / f"frame{number}{suffix}"), np.full((20, 24, 3), number * 2, np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    source = open_images(tmp_path)
    assert [path.stem for path in source.files] == ["frame1", "frame9", "frame10", "frame100"]
    assert [int(frame.mean()) for frame in read(source, 0, 4)] == [2, 18, 20, 200]
    assert source.dtype == "uint8"


def test_sixteen_bit_images_keep_their_precision(tmp_path):
    values = np.arange(20 * 24, dtype=np.uint16).reshape(20, 24) * 130
    cv2.imwrite(str(tmp_path / "a.png"), values)
    source = open_images(tmp_path)
    assert source.dtype == "float32"
    np.testing.assert_allclose(read(source, 0, 1)[0, 0], values * (255 / 65535), rtol=1e-6)


def test_an_image_of_another_size_is_refused(tmp_path):
    for name, side in (("a.png", 20), ("b.png", 22)):
        cv2.imwrite(str(tmp_path / name), np.zeros((side, 24, 3), np.uint8))
    with pytest.raises(InputError, match=r"b\.png: is 24x22 .* the first image is 24x20"):
        read(open_images(tmp_path), 0, 2)


@pytest.fixture
def field_file(tmp_path):
    values = np.random.default_rng(0).normal(size=(20, 1, 18, 22)).astype(np.float32)
    values[3, 0, 4:7, 5:9] = np.nan
    array = xarray.DataArray(values, dims=("time", "level", "lat", "lon"), attrs={"units": "s-1"})
    path = tmp_path / "field.nc"
    xarray.Dataset({"vorticity": array}).to_netcdf(path)
    return path, values[:, 0]


def test_a_field_keeps_its_values_and_units_and_fills_gaps(field_file):
    from hpc_vsr.media.field_source import open_field

    path, values = field_file
    source = open_field(path, "vorticity")
    assert (source.num_frames, source.height, source.width, source.dtype) == (20, 18, 22, "float32")
    assert source.description["units"] == "s-1" and source.description["dimensions"] == ["time", "lat", "lon"]
    for index, (frame, valid) in enumerate(source.read(0, 20)):
        gaps = np.isnan(values[index])
        assert np.isfinite(frame).all()
        np.testing.assert_array_equal(frame[0][~gaps], values[index][~gaps])
        assert (valid is None) == (not gaps.any())
        if valid is not None:
            np.testing.assert_array_equal(valid, ~gaps)
            assert set(frame[0][gaps]) <= set(values[index][~gaps])


def test_a_field_without_that_variable_lists_what_it_has(field_file):
    from hpc_vsr.media.field_source import open_field

    with pytest.raises(InputError, match=r"no variable 'vort'; it has: vorticity\('time', 'level', 'lat', 'lon'\)"):
        open_field(field_file[0], "vort")


def test_a_field_in_several_files_is_one(tmp_path):
    from hpc_vsr.media.field_source import open_field

    values = np.random.default_rng(0).normal(size=(13, 16, 18)).astype(np.float32)
    lat = ("lat", np.linspace(60, 45, 16), {"units": "degrees_north"})
    whole = xarray.Dataset({"u": (("time", "lat", "lon"), values, {"units": "m s-1"})},
                           coords={"time": np.arange(13.0), "lat": lat})
    for name, part in (("u_2.nc", slice(0, 5)), ("u_10.nc", slice(5, 12)), ("u_11.nc", slice(12, 13))):
        whole.isel(time=part).to_netcdf(tmp_path / name)
    source = open_field(tmp_path / "u_*.nc", "u")
    assert [path.name for path in source.files] == ["u_2.nc", "u_10.nc", "u_11.nc"] and source.num_frames == 13
    np.testing.assert_array_equal(read(source, 3, 13)[:, 0], values[3:])
    assert source.description["coordinates"] == [
        {"name": "lat", "units": "degrees_north", "size": 16, "first": 60.0, "last": 45.0},
        {"name": "lon", "units": "grid points", "size": 18, "first": 0.0, "last": 17.0}]
    (tmp_path / "u_11.nc").rename(tmp_path / "u_1.nc")
    with pytest.raises(InputError, match=r"u_2\.nc: starts at time 0\.0, before the previous file ends"):
        open_field(tmp_path / "u_*.nc", "u")
    with pytest.raises(InputError, match="no file matches this pattern"):
        open_field(tmp_path / "v_*.nc", "u")


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_zarr_store_is_a_field(field_file, tmp_path):
    from hpc_vsr.media.field_source import open_field

    with xarray.open_dataset(field_file[0]) as dataset:
        dataset.to_zarr(tmp_path / "field.zarr")
    source = open_field(tmp_path / "field.zarr", "vorticity")
    valid = ~np.isnan(field_file[1])
    np.testing.assert_array_equal(read(source, 0, 20)[:, 0][valid], field_file[1][valid])


@pytest.mark.parametrize("change, words", [
    ({"dims": ("time", "lon", "lat")}, r"b\.nc: u is \(lon: 16 .* the same grid and unit"),
    ({"lat": np.linspace(60, 44, 16)}, r"lat: 16 from 60 to 44"),
    ({"time": np.arange(5).astype("datetime64[D]")},
     "time is days since 1970.* a number without a unit; .* the same type"),
    ({"units": "km h-1"}, "in km h-1, but in a.nc"),
])
def test_files_that_do_not_belong_together_are_refused(tmp_path, change, words):
    from hpc_vsr.media.field_source import open_field

    for name, given in (("a.nc", {}), ("b.nc", change)):
        times = given.get("time", np.arange(5.0) + 5 * (name == "b.nc"))
        array = xarray.DataArray(np.zeros((5, 16, 16), np.float32), dims=given.get("dims", ("time", "lat", "lon")),
                                 attrs={"units": given.get("units", "m s-1")},
                                 coords={"time": times, "lat": given.get("lat", np.linspace(60, 45, 16))})
        xarray.Dataset({"u": array}).to_netcdf(tmp_path / name)
    with pytest.raises(InputError, match=words):
        open_field(tmp_path / "*.nc", "u")


def test_a_coordinate_with_gaps_becomes_grid_points(tmp_path):
    from hpc_vsr.media.field_source import open_field

    lat = np.linspace(60, 45, 16)
    lat[3] = np.nan
    array = xarray.DataArray(np.zeros((20, 16, 16), np.float32), dims=("time", "lat", "lon"), coords={"lat": lat})
    xarray.Dataset({"u": array}).to_netcdf(tmp_path / "a.nc")
    assert open_field(tmp_path / "a.nc", "u").description["coordinates"][0]["units"] == "grid points"
