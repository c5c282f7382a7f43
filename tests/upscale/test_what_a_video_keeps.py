"""What the output keeps of a video: more than 8 bits, HDR10, transparency, many frames a second."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from doubling import double_video
from patterns import moving_pattern
from videos import copy_packets, write_avi, write_planes, write_rich, write_video

from hpc_vsr.media.video_source import open_video
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import read_json

SIZE = 24, 32
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"


def twice(plane: np.ndarray) -> np.ndarray:
    return plane.repeat(2, -2).repeat(2, -1)


def test_12_bits_in_16_come_out_as_they_went_in(tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (12, *SIZE)).astype(np.uint16)
    source = write_planes(tmp_path / "in.mkv", [[frame] for frame in values], "gray16le", full_range=True)
    work = double_video(source, tmp_path / "out.mkv")
    assert work.encoding.planes.white == 4095
    after = open_video(tmp_path / "out.mkv", bits=12)
    assert after.tags.pixel_format == "gray16le" and after.tags.full_range
    stored = [planes[0] for planes in after.read_planes(0, 12, "gray16le")]
    np.testing.assert_array_equal(stored, twice(values))


@pytest.mark.parametrize(("pixel_format", "shape"), [("yuv444p10le", SIZE), ("yuv420p10le", (12, 16))])
def test_a_network_for_rgb_keeps_10_bits(tmp_path, pixel_format, shape):
    """Luma, also between the levels of 8 bits; the colours are ones that RGB has."""
    luma = np.linspace(300, 700, 24 * 32).reshape(SIZE).astype(np.uint16)
    planes = [luma, np.full(shape, 500, np.uint16), np.full(shape, 530, np.uint16)]
    source = write_planes(tmp_path / "in.mkv", [planes] * 12, pixel_format, matrix=1)
    double_video(source, tmp_path / "out.mkv", channels=3, codec="ffv1")
    found = next(open_video(tmp_path / "out.mkv").read_planes(3, 4, pixel_format))
    for after, before in zip(found, planes, strict=True):
        assert np.abs(after.astype(int) - twice(before)).max() <= 1


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "auto"), (".mp4", "h264"), (".mp4", "av1")])
def test_the_metadata_of_hdr10_stays(tmp_path, suffix, codec, capfd):
    source = tmp_path / "in.mkv"
    options = {"x265-params": f"log-level=none:hdr10=1:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:"
                              f"max-cll=1000,400:master-display={DISPLAY}"}
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx265", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p10le"
        for index, rgb in enumerate(moving_pattern(12, 48, 64)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p10le")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    work = double_video(source, tmp_path / f"out{suffix}", codec=codec)
    assert work.encoding.codec == ("hevc" if codec == "auto" else codec)
    before, after = open_video(source).tags.hdr, open_video(tmp_path / f"out{suffix}").tags.hdr
    assert after.light == before.light == (1000, 400)
    # AV1 counts in powers of two
    np.testing.assert_allclose([float(value) for value in after.display], [float(value) for value in before.display],
                               rtol=1e-3 if codec == "av1" else 0, atol=5e-5 if codec == "av1" else 0)
    assert [float(value) for value in before.display[:2]] == [0.68, 0.32] and before.display[9] == 1000
    capfd.readouterr()
    double_video(source, tmp_path / "lossless.mkv", codec="ffv1")
    assert "mastering display and light level (--codec hevc keeps them) is left out" in capfd.readouterr().err


def write_clear(path: Path) -> np.ndarray:
    opacity = np.full((12, *SIZE), 255, np.uint8)
    opacity[:, 6:18, 8:24] = 60
    grey, chroma = np.full(SIZE, 100, np.uint8), [np.full((12, 16), 128, np.uint8)] * 2
    write_planes(path, [[grey, *chroma, plane] for plane in opacity], "yuva420p")
    return opacity


@pytest.mark.parametrize(("suffix", "pixel_format", "channels"), [
    (".mkv", "yuva420p", 1), (".mkv", "yuva420p", 3), (".mov", "yuva444p10le", 1)])
def test_transparency_stays_where_the_file_can_hold_it(tmp_path, suffix, pixel_format, channels):
    opacity = write_clear(tmp_path / "in.mkv")
    double_video(tmp_path / "in.mkv", tmp_path / f"out{suffix}", channels=channels)
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        frame = next(container.decode(video=0)).reformat(format="rgba")
    found = frame.to_ndarray()[..., 3].astype(int)
    inside, outside = np.s_[20:28, 24:40], np.s_[:6, :8]
    assert np.abs(found[inside] - 60).max() <= 1 and found[outside].min() >= 254
    assert (found < 150).sum() == pytest.approx((twice(opacity[0]) < 150).sum(), rel=0.06)
    assert pixel_format in ("yuva420p", open_video(tmp_path / "in.mkv").tags.pixel_format, "yuva444p10le")


def test_transparency_that_the_file_cannot_hold_is_told(tmp_path, capfd):
    write_clear(tmp_path / "in.mkv")
    work = double_video(tmp_path / "in.mkv", tmp_path / "out.mp4")
    assert work.encoding.codec == "h264" and "transparency (a .mkv file keeps it) is left out" in capfd.readouterr().err


def test_frames_shorter_than_a_millisecond_are_refused_for_matroska(tmp_path):
    path = tmp_path / "fast.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5000)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for index, rgb in enumerate(moving_pattern(12, 48, 64)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"a \.mkv file counts milliseconds, .* write \.mp4 or \.mov"):
        double_video(path, tmp_path / "out.mkv")
    assert not (tmp_path / "out.mkv").exists()
    for suffix in (".mp4", ".mov"):
        double_video(path, tmp_path / f"out{suffix}")
        after = open_video(tmp_path / f"out{suffix}")
        assert [time * after.tags.time_base * 5000 for time in after.times] == list(range(13))


def test_the_records_name_the_frames_for_which_others_stand_in(tmp_path, monkeypatch):
    chunks = [cv2.imencode(".jpg", rgb)[1].tobytes() for rgb in moving_pattern(12, 48, 64)]
    chunks[7] = chunks[7][: len(chunks[7]) // 2]
    source = write_avi(tmp_path / "in.avi", chunks, b"MJPG", (48, 64), 24)
    with pytest.raises(InputError, match="frame 7 is damaged"):
        double_video(source, tmp_path / "out.mkv")
    records = []
    monkeypatch.setattr("hpc_vsr.upscale.video.shutil.rmtree", lambda folder, **_: (
        records.append(read_json(folder / "plan.json", "")), [path.unlink() for path in folder.iterdir()],
        folder.rmdir()))
    double_video(source, tmp_path / "out.mkv", damaged="repeat", codec="ffv1")
    assert records[0]["damaged"] == [7]
    with av.open(str(tmp_path / "out.mkv")) as container:
        comment = {key.lower(): value for key, value in container.metadata.items()}["comment"]
    assert comment.endswith("; another frame stands in for 1 damaged")
    frames = [frame for frame, _ in open_video(tmp_path / "out.mkv").read(0, 12)]
    np.testing.assert_array_equal(frames[7], frames[6])
    assert np.abs(frames[8].astype(int) - frames[7]).max() > 5


def test_sound_of_appended_parts_is_left_out_by_name(tmp_path, capfd):
    for name in ("a.mkv", "b.mkv"):
        write_rich(tmp_path / name, "yuv420p")
    both = tmp_path / "both.ts"
    parts = []
    for name in ("a", "b"):
        part = tmp_path / f"{name}.ts"
        with av.open(str(tmp_path / f"{name}.mkv")) as original, av.open(str(part), "w") as target:
            streams = [original.streams.video[0], original.streams.audio[0]]
            copies = {stream.index: target.add_stream_from_template(stream) for stream in streams}
            for packet in original.demux(streams):
                if packet.size:
                    packet.stream = copies[packet.stream.index]
                    target.mux(packet)
        parts.append(part.read_bytes())
    both.write_bytes(b"".join(parts))
    double_video(both, tmp_path / "out.mp4")
    assert "audio stream 1 is left out" in capfd.readouterr().err
    after = open_video(tmp_path / "out.mp4")
    assert after.num_frames == 24 and np.diff(after.times).min() > 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio


def test_what_is_left_out_at_the_start_does_not_shift_the_time(tmp_path):
    whole = write_video(tmp_path / "whole.mkv", moving_pattern(30, 48, 64), gop=10)
    cut = copy_packets(whole, tmp_path / "cut.mkv", lambda number, packet: packet if number >= 5 else None)
    double_video(cut, tmp_path / "out.mkv")
    assert open_video(tmp_path / "out.mkv").times == open_video(whole).times[10:]
