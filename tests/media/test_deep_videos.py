"""Videos of more than 8 bits, with transparency or other colours: their values by the closed form of each format."""

from __future__ import annotations

import av
import numpy as np
import pytest
from videos import write_planes

from hpc_vsr.media.video_source import open_video
from hpc_vsr.system.errors import InputError

SIZE = 24, 32


def read(source) -> np.ndarray:
    return np.stack([frame for frame, _ in source.read(0, source.num_frames)])


def grey(values: np.ndarray, white: int) -> np.ndarray:
    return values * (255 / white)


def codes(largest: int, count: int = 20, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, largest + 1, (count, *SIZE)).astype(np.uint16)
    values[:, 0, 0], values[:, 0, 1] = largest, 0
    return values


@pytest.mark.parametrize(("shift", "white"), [(0, 4095), (4, 65520)])
def test_12_bits_in_16_are_grey_levels_with_fractions(tmp_path, shift, white):
    """In the lower or in the upper part; 16 grey levels would be left of the former if white were 65535."""
    values = codes(4095)
    path = write_planes(tmp_path / "a.mkv", [[frame << shift] for frame in values], "gray16le", full_range=True)
    source = open_video(path)
    assert source.dtype == "float32" and source.description["bits"] == 12 and source.description["white"] == white
    np.testing.assert_allclose(read(source)[:, 0], grey(values, 4095), atol=2e-5)
    assert any("12 bits" in line for line in source.facts.lines)
    np.testing.assert_array_equal(read(open_video(path, bits=12)), read(source))
    if shift == 0:
        np.testing.assert_allclose(read(open_video(path, bits=14))[:, 0], grey(values, 16383), atol=2e-5)
        planes = source.planes("gray16le")
        stored = next(source.read_planes(3, 4, "gray16le"))[0]
        np.testing.assert_array_equal(stored, values[3])
        np.testing.assert_array_equal(planes.to_code(planes.to_grey(stored), stored), stored)


def test_a_later_frame_that_needs_more_bits_is_refused_with_its_number(tmp_path):
    values = codes(1023, 40)
    values[13, 5, 5] = 3000
    path = write_planes(tmp_path / "a.mkv", [[frame] for frame in values], "gray16le", full_range=True)
    source = open_video(path)
    assert source.description["white"] == 1023
    with pytest.raises(InputError, match="frame 13 has the value 3000, above the white of 1023 .*--bits"):
        read(source)
    np.testing.assert_allclose(read(open_video(path, bits=12))[:, 0], grey(values, 4095), atol=2e-5)


def test_10_bits_are_the_same_grey_levels_in_finer_steps(tmp_path):
    """Luma is 16..235 in 8 bits and 64..940 in 10; what lies outside is black or white, as in 8 bits."""
    values = codes(1023)
    grey_chroma = [np.full((12, 16), 512, np.uint16)] * 2
    path = write_planes(tmp_path / "a.mkv", [[frame, *grey_chroma] for frame in values], "yuv420p10le", matrix=6)
    source = open_video(path)
    expected = np.clip((values / 4 - 16) * 255 / 219, 0, 255)
    np.testing.assert_allclose(read(source)[:, 0], expected, atol=1e-4)
    assert [source.description[key] for key in ("bits", "white", "luma")] == [10, 940, "as coded"]
    eight = write_planes(tmp_path / "b.mkv", [[(frame // 4).astype(np.uint8), *[np.full((12, 16), 128, np.uint8)] * 2]
                                              for frame in values], "yuv420p", matrix=6)
    whole = values % 4 == 0
    assert np.abs(read(open_video(eight))[:, 0].astype(float) - read(source)[:, 0])[whole].max() <= 0.501
    with pytest.raises(InputError, match="--bits 12: .* says that it has 10 bits"):
        open_video(path, bits=12)
    with pytest.raises(InputError, match="--bits: .* has 8 bits; leave it out"):
        open_video(eight, bits=12)


def test_deep_colours_keep_their_depth(tmp_path):
    rgb = np.stack([codes(65535, seed=seed) for seed in range(3)], -1)
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "rgb48le"
        for index, picture in enumerate(rgb):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb48le")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    np.testing.assert_allclose(read(open_video(path, "rgb")), grey(rgb.transpose(0, 3, 1, 2), 65535), atol=1e-4)
    luma = grey((rgb * [0.299, 0.587, 0.114]).sum(-1), 65535)
    np.testing.assert_allclose(read(open_video(path))[:, 0], luma, atol=1e-3)


@pytest.mark.parametrize(("matrix", "weights"), [(1, (0.2126, 0.7152, 0.0722)), (9, (0.2627, 0.678, 0.0593)),
                                                 (6, (0.299, 0.587, 0.114))])
def test_the_colours_of_10_bits_follow_their_matrix(tmp_path, matrix, weights):
    """A flat colour comes back as that colour, BT.2020 among them."""
    colour = np.array([200.0, 90.0, 40.0])
    red, green, blue = colour / 255
    kr, kg, kb = weights
    luma = kr * red + kg * green + kb * blue
    stored = np.rint([876 * luma + 64, 896 * (blue - luma) / (2 * (1 - kb)) + 512,
                      896 * (red - luma) / (2 * (1 - kr)) + 512]).astype(np.uint16)
    planes = [np.full(SIZE, code, np.uint16) for code in stored]
    path = write_planes(tmp_path / "a.mkv", [planes] * 20, "yuv444p10le", matrix=matrix)
    assert np.abs(read(open_video(path, "rgb"))[3] - colour[:, None, None]).max() < 0.5
    expected = colour @ [0.299, 0.587, 0.114]
    assert np.abs(read(open_video(path))[3] - expected).max() < 0.5


def test_transparency_is_told(tmp_path):
    grey, chroma = np.full(SIZE, 100, np.uint8), [np.full((12, 16), 128, np.uint8)] * 2
    for name, opacity in (("clear", 90), ("opaque", 255)):
        planes = [grey, *chroma, np.full(SIZE, opacity, np.uint8)]
        source = open_video(write_planes(tmp_path / f"{name}.mkv", [planes] * 20, "yuva420p"))
        assert source.is_transparent() == any("transparency" in text for text in source.facts.warnings) \
            == (name == "clear")


@pytest.mark.parametrize("begin", [1, 3, 15, 19])
@pytest.mark.parametrize(("suffix", "codec", "pixel_format"), [
    (".mkv", "ffv1", "yuva420p"), (".mov", "prores_ks", "yuva444p10le"), (".mov", "png", "rgba")])
def test_transparency_that_begins_later_is_told(tmp_path, begin, suffix, codec, pixel_format):
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, pixel_format
        for index in range(20):
            rgba = np.full((*SIZE, 4), 100, np.uint8)
            rgba[..., 3] = 60 if index >= begin else 255
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=pixel_format)
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source = open_video(path)
    assert source.is_transparent() and any("has transparency" in text for text in source.facts.warnings)


def test_floating_point_numbers_are_for_fields(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25, options={"strict": "experimental", "level": "4"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "gbrpf32le"
        try:
            for index in range(20):
                frame = av.VideoFrame.from_ndarray(np.zeros((*SIZE, 3), np.float32), format="gbrpf32le")
                frame.pts = index
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        except av.error.FFmpegError:
            pytest.skip("this FFmpeg writes no floating-point video")
    with pytest.raises(InputError, match="floating-point"):
        open_video(path)
