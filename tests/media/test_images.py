"""Folders of images and TIFF files as sources: every header counts, and nothing is left out without a word."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile

from hpc_vsr.media.image_source import open_images
from hpc_vsr.system.errors import InputError

SIZE = 20, 24
GRAY = (np.arange(20 * 24).reshape(SIZE) % 251).astype(np.uint8)


def read(path, channels="y", **settings) -> np.ndarray:
    source = open_images(path, channels, **settings)
    return np.stack([frame for frame, _ in source.read(0, source.num_frames)])


def stack(count=6, dtype=np.uint16) -> np.ndarray:
    """Pages that differ, with values that use all bits."""
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (count, *SIZE)).astype(dtype)


def add_chunk(png: bytes, name: bytes, content: bytes) -> bytes:
    """Insert a chunk behind the header of a PNG."""
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return png[:33] + chunk + png[33:]


def exif(orientation: int) -> bytes:
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


# how the row 0 and the column 0 of the stored image lie in the upright one: Exif 2.32, tag 274
UPRIGHT = {1: GRAY, 2: GRAY[:, ::-1], 3: GRAY[::-1, ::-1], 4: GRAY[::-1], 5: GRAY.T, 6: np.rot90(GRAY, -1),
           7: GRAY[::-1, ::-1].T, 8: np.rot90(GRAY)}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["png", "tif", "lzw.tif", "jpg"])
def test_images_are_turned_upright(tmp_path, orientation, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "png":
        path.write_bytes(add_chunk(png(GRAY), b"eXIf", exif(orientation)))
    elif kind == "jpg":
        plain = cv2.imencode(".jpg", GRAY, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
        segment = b"Exif\0\0" + exif(orientation)
        path.write_bytes(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:])
    else:
        compression = None if kind == "tif" else "zlib"
        tifffile.imwrite(path, GRAY, compression=compression, extratags=[(274, 3, 1, orientation, True)])
    tolerance = 8 if kind == "jpg" else 0
    np.testing.assert_allclose(read(tmp_path)[0, 0], UPRIGHT[orientation], atol=tolerance)
    told = open_images(tmp_path).facts.lines
    assert any("turned upright" in line for line in told) is (orientation > 1)


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"imagej": True, "metadata": {"axes": "TYX"}},
                                     {"imagej": True, "metadata": {"axes": "ZYX"}}, {"compression": "zlib"},
                                     {"bigtiff": True, "compression": "zlib"}, {"byteorder": ">"},
                                     {"ome": True, "metadata": {"axes": "TYX"}},
                                     {"byteorder": ">", "compression": "zlib", "predictor": True}])
def test_every_page_is_a_frame(tmp_path, options):
    values = stack()
    tifffile.imwrite(tmp_path / "s.tif", values, **options)
    for path in (tmp_path, tmp_path / "s.tif"):
        found = read(path)
        np.testing.assert_allclose(found[:, 0], values * (255 / 65535), rtol=1e-6)
    source = open_images(tmp_path)
    assert source.names == [f"s-{index}.tif" for index in range(6)] and source.files == [tmp_path / "s.tif"]
    label = options.get("metadata", {}).get("axes", "C" if "imagej" in options else "T")[0]
    assert any("calls its pages" in line for line in source.facts.warnings) is (label != "T")


def test_pages_without_a_directory_are_found_by_imagejs_count(tmp_path):
    values = stack(30)
    tifffile.imwrite(tmp_path / "s.tif", values[0], imagej=True, metadata={"images": 30, "frames": 30, "axes": "YX"})
    text = (tmp_path / "s.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "s.tif") as file:
        start = file.pages[0].dataoffsets[0]
        tag = file.pages[0].tags["ImageDescription"]
        comment = b"ImageJ=1.11a\nimages=30\nframes=30\n"
        assert len(comment) <= tag.count and start > tag.valueoffset
    text = bytearray(text)
    text[tag.valueoffset : tag.valueoffset + tag.count] = comment.ljust(tag.count, b"\0")
    (tmp_path / "s.tif").write_bytes(bytes(text[:start]) + values.astype(file.byteorder + "u2").tobytes())
    np.testing.assert_allclose(read(tmp_path)[:, 0], values * (255 / 65535), rtol=1e-6)
    (tmp_path / "s.tif").write_bytes(bytes(text[:start]) + values[:20].astype(file.byteorder + "u2").tobytes())
    with pytest.raises(InputError, match="promises 30 images"):
        open_images(tmp_path)


def test_stacks_follow_each_other_in_the_order_of_their_names(tmp_path):
    values = stack(9)
    for number, part in ((2, values[:4]), (10, values[4:])):
        tifffile.imwrite(tmp_path / f"part{number}.tif", part, photometric="minisblack")
    np.testing.assert_allclose(read(tmp_path)[:, 0], values * (255 / 65535), rtol=1e-6)
    for number in (11, 12, 13, 14, 15, 17):  # what is missing between files is a gap between frames
        tifffile.imwrite(tmp_path / f"part{number}.tif", values[:2])
    (tmp_path / "part2.tif").unlink()
    assert open_images(tmp_path).facts.breaks == (5 + 2 * 5,)


@pytest.mark.parametrize(("write", "words"), [
    (lambda path: tifffile.imwrite(path, np.zeros((3, 2, *SIZE), "u1"), imagej=True, metadata={"axes": "TCYX"}),
     r"more than one direction \(3 times, 2 channels\)"),
    (lambda path: tifffile.imwrite(path, np.zeros((3, 2, *SIZE), "u1"), ome=True, metadata={"axes": "TZYX"}),
     r"more than one direction \(3 times, 2 slices"),
    (lambda path: tifffile.imwrite(path, np.zeros((*SIZE, 4), "u1"), photometric="separated"), "SEPARATED"),
    (lambda path: tifffile.imwrite(path, np.zeros(SIZE, "u1"), photometric="cfa"), "CFA"),
    (lambda path: tifffile.imwrite(path, np.zeros((*SIZE, 5), "u1"), photometric="minisblack", planarconfig="contig"),
     "5 channels"),
    (lambda path: tifffile.imwrite(path, GRAY.astype("i2")), "int16 pixels"),
    (lambda path: tifffile.imwrite(path, GRAY.astype("f8")), "float64 pixels"),
    (lambda path: tifffile.imwrite(path, np.dstack([GRAY] * 2), photometric="minisblack", extrasamples=[2],
                                   planarconfig="contig", compression="zlib"), "transparency that OpenCV"),
    (lambda path: tifffile.imwrite(path, np.zeros((3, *SIZE), "u2"), photometric="rgb", planarconfig="separate",
                                   compression="zlib"), "which OpenCV mixes up"),
    (lambda path: path.write_bytes(b"II*\0\x08\0\0\0\x09"), "may be truncated"),
    (lambda path: path.write_bytes(png(GRAY)[:30]), "may be truncated"),
    (lambda path: path.write_bytes(add_chunk(png(GRAY), b"acTL", struct.pack(">II", 12, 0))), "animated PNG"),
])
def test_what_would_be_read_as_something_else_is_refused_by_name(tmp_path, write, words):
    write(tmp_path / "a.tif")
    with pytest.raises(InputError, match=words):
        open_images(tmp_path)


def test_a_jpeg_for_print_or_of_12_bits_is_refused_by_name(tmp_path):
    plain = cv2.imencode(".jpg", np.dstack([GRAY] * 3))[1].tobytes()
    frame = plain.index(b"\xff\xc0")
    for offset, value, words in ((9, 4, "CMYK"), (4, 12, "JPEG of 12 bits")):
        changed = bytearray(plain)
        changed[frame + offset] = value
        (tmp_path / "a.jpg").write_bytes(changed)
        with pytest.raises(InputError, match=words):
            open_images(tmp_path)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_0_is_inverted(tmp_path, dtype, compression):
    values = stack(1, dtype)[0]
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite", compression=compression)
    white = np.iinfo(dtype).max
    np.testing.assert_allclose(read(tmp_path)[0, 0], (white - values.astype(float)) * (255 / white), rtol=1e-6)
    assert any(line.startswith("white is 0") for line in open_images(tmp_path).facts.lines)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_transparency_changes_no_colour(tmp_path, compression):
    rgba = np.random.default_rng(1).integers(0, 256, (*SIZE, 4), dtype=np.uint8)
    for kind in ("unassalpha", "assocalpha"):
        tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=[kind], compression=compression)
        np.testing.assert_array_equal(read(tmp_path, "rgb")[0], rgba[..., :3].transpose(2, 0, 1))
        source = open_images(tmp_path)
        np.testing.assert_array_equal(next(source.images(0, 1)), rgba)
        assert "1 of 1 images have transparency" in source.facts.warnings[0]


def test_a_transparent_level_of_a_png_becomes_transparency(tmp_path):
    (tmp_path / "a.png").write_bytes(add_chunk(png(GRAY), b"tRNS", struct.pack(">H", 7)))
    image = next(open_images(tmp_path).images(0, 1))
    np.testing.assert_array_equal(image, np.dstack([GRAY, GRAY, GRAY, np.where(GRAY == 7, 0, 255)]))


def test_palettes_and_planes_become_colours(tmp_path):
    colours = np.random.default_rng(2).integers(0, 256, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "palette.tif", GRAY, photometric="palette", colormap=colours * 257)
    np.testing.assert_array_equal(read(tmp_path / "palette.tif", "rgb")[0], colours[:, GRAY])
    planes = np.random.default_rng(3).integers(0, 65536, (3, *SIZE), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    np.testing.assert_allclose(read(tmp_path / "planes.tif", "rgb")[0], planes * (255 / 65535), rtol=1e-6)
    for compression in (None, "zlib"):
        tifffile.imwrite(tmp_path / "planes.tif", (planes >> 8).astype(np.uint8), photometric="rgb",
                         planarconfig="separate", compression=compression)
        np.testing.assert_array_equal(read(tmp_path / "planes.tif", "rgb")[0], planes >> 8)


def test_packed_12_bits_keep_their_values(tmp_path):
    values = stack(1)[0] >> 4
    first, second = values[:, ::2], values[:, 1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 2).astype(np.uint8).tobytes()
    tags = {256: 24, 257: 20, 258: 12, 259: 1, 262: 1, 273: 8 + 2 + 9 * 12 + 4, 277: 1, 278: 20, 279: len(packed)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4) + packed)
    source = open_images(tmp_path)
    assert (source.description["white"], source.description["bits"], source.facts.warnings) == (4095, 12, ())
    np.testing.assert_allclose(read(tmp_path)[0, 0], values * (255 / 4095), rtol=1e-6)


def write_folder(folder, images, name="f{:02d}.png") -> None:
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / name.format(index)), image)


def test_12_of_16_bits_are_found_and_told_or_given(tmp_path):
    values = (stack(3) >> 4).clip(0, 4000)
    write_folder(tmp_path, values)
    np.testing.assert_allclose(read(tmp_path)[:, 0], values * (255 / 4095), rtol=1e-6)
    source = open_images(tmp_path)
    assert (source.description["white"], source.description["bits"]) == (4095, 12)
    assert "white is taken to be 4095" in source.facts.warnings[0]
    np.testing.assert_allclose(read(tmp_path, bits=16)[:, 0], values * (255 / 65535), rtol=1e-6)
    assert not open_images(tmp_path, bits=16).facts.warnings
    with pytest.raises(InputError, match=r"f00\.png: has the value \d+, above the white of 1023"):
        read(tmp_path, bits=10)
    with pytest.raises(InputError, match="give 8 to 16"):
        open_images(tmp_path, bits=17)


def test_the_brightest_image_decides_wherever_it_is(tmp_path):
    values = np.zeros((4, *SIZE), np.uint16)
    values[3, 5, 5] = 4096
    write_folder(tmp_path, values)
    assert open_images(tmp_path).description["bits"] == 14


def test_8_bit_images_have_no_depth_to_give(tmp_path):
    write_folder(tmp_path, [GRAY])
    with pytest.raises(InputError, match="--bits 12: is for images of more than 8 bits"):
        open_images(tmp_path, bits=12)
    assert open_images(tmp_path).description == {"image_type": "uint8", "first": "f00.png", "last": "f00.png"}


def test_float_images_stay_as_they_are_and_it_is_told(tmp_path):
    values = np.random.default_rng(4).normal(size=SIZE).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    np.testing.assert_array_equal(read(tmp_path, "rgb")[0, 1], values)
    source = open_images(tmp_path)
    assert source.white is None and "white" not in source.description
    assert any("white is not known" in line for line in source.facts.lines)


def test_gray_among_colours_is_colour(tmp_path):
    colours = np.dstack([GRAY, GRAY[::-1], 250 - GRAY])
    write_folder(tmp_path, [GRAY, colours, colours])
    source = open_images(tmp_path, "rgb")
    assert not source.is_gray and "1 of 3 images are gray, such as f00.png" in source.facts.warnings[0]
    frames = read(tmp_path, "rgb")
    np.testing.assert_array_equal(frames[0], np.stack([GRAY] * 3))
    np.testing.assert_array_equal(frames[1], colours[..., ::-1].transpose(2, 0, 1))


@pytest.mark.parametrize(("other", "words"), [(np.zeros((22, 24), np.uint8), "24x22"),
                                              (GRAY.astype(np.uint16), "uint16")])
def test_the_last_image_is_known_before_the_first_is_read(tmp_path, other, words):
    write_folder(tmp_path, [*[GRAY] * 8, other])
    with pytest.raises(InputError, match=rf"f08\.png: is .*{words}.*; all images must be alike"):
        open_images(tmp_path)


def test_an_image_that_is_there_twice_is_refused(tmp_path):
    write_folder(tmp_path, [GRAY] * 3)
    write_folder(tmp_path, [GRAY] * 3, "f{:02d}.jpg")
    with pytest.raises(InputError, match=r"f00\.jpg and f00\.png, whose names differ only in their endings"):
        open_images(tmp_path)


def test_missing_numbers_end_windows_and_are_told(tmp_path):
    write_folder(tmp_path, [GRAY] * 24)
    for index in (9, 10):
        (tmp_path / f"f{index:02d}.png").unlink()
    facts = open_images(tmp_path).facts
    assert facts.breaks == (9,) and "after f08.png comes f11.png" in facts.warnings[0]


def test_channels_of_a_microscope_are_no_frames(tmp_path):
    for index in range(3):
        tifffile.imwrite(tmp_path / f"t{index}.tif", stack(2), imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(InputError, match="has 2 channels on pages of their own"):
        open_images(tmp_path)


def test_smaller_copies_of_a_page_are_no_frames(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(GRAY)
        file.write(GRAY[::2, ::2], subfiletype=1)
    np.testing.assert_array_equal(read(tmp_path)[:, 0], GRAY[None])
