"""Videos as recorders leave them: without time stamps, with dropped, missing or damaged frames, in several parts."""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from patterns import moving_pattern
from videos import copy_packets, write_avi, write_planes, write_video

from hpc_vsr.media.reading import Facts
from hpc_vsr.media.video_source import open_video
from hpc_vsr.system.errors import InputError

SIZE = 48, 64


def read(source, start=0, stop=None) -> np.ndarray:
    return np.stack([frame[0] for frame, _ in source.read(start, source.num_frames if stop is None else stop)])


def grey_frames(count: int) -> list[np.ndarray]:
    return [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in moving_pattern(count, *SIZE)]


def check_any_range(source, whole) -> None:
    assert len(whole) == source.num_frames
    for start, stop in [(0, 1), (len(whole) // 2, len(whole) // 2 + 3), (len(whole) - 1, len(whole))]:
        np.testing.assert_array_equal(read(source, start, stop), whole[start:stop])


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """H.264 with B-frames and a key frame every 12, and its frames."""
    path = write_video(tmp_path_factory.mktemp("coded") / "clip.mp4", moving_pattern(30, *SIZE), gop=12, b_frames=2)
    return path, read(open_video(path))


def test_a_dropped_frame_is_the_one_before_again(tmp_path):
    frames = grey_frames(20)
    chunks = [b"" if index in (5, 6, 13) else frame.tobytes() for index, frame in enumerate(frames)]
    source = open_video(write_avi(tmp_path / "a.avi", chunks, b"Y800", SIZE))
    expected = np.stack([frames[{5: 4, 6: 4, 13: 12}.get(index, index)] for index in range(20)])
    np.testing.assert_array_equal(read(source), expected)
    check_any_range(source, expected)
    np.testing.assert_array_equal(read(source, 6, 8), expected[6:8])
    assert source.description["dropped"] == [5, 6, 13] and source.times == list(range(21))
    assert "3 frames were dropped by the recorder (5, 6, 13)" in source.facts.warnings[0]


def test_a_wrong_number_in_the_header_of_a_whole_avi_is_only_told(tmp_path):
    frames = grey_frames(20)
    path = write_avi(tmp_path / "a.avi", [frame.tobytes() for frame in frames], b"Y800", SIZE, announced=22)
    source = open_video(path)
    np.testing.assert_array_equal(read(source), frames)
    assert "has 20 frames and announces 22" in source.facts.warnings[0]
    path.write_bytes(path.read_bytes()[: -5 * 48 * 64])
    with pytest.raises(InputError, match="truncated"):
        open_video(path)


@pytest.mark.parametrize("name", ["clip.mkv", "clip.webm"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_truncated_matroska_is_refused_unless_it_does_not_say_how_long_it_is(tmp_path, name, b_frames):
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    path = write_video(tmp_path / name, moving_pattern(30, *SIZE), codec, b_frames=b_frames)
    content, frames = path.read_bytes(), read(open_video(path))
    path.write_bytes(content + b"\0" * 10)  # such as a file system pads it
    np.testing.assert_array_equal(read(open_video(path)), frames)
    for kept in (len(content) // 2, len(content) - 1):
        path.write_bytes(content[:kept])
        with pytest.raises(InputError, match=rf"has {kept:,} of the {len(content):,} bytes that it announces; "
                                             "the file is truncated, copy it again"):
            open_video(path)
    # a recording that was ended by force, or a stream
    begin = content.index(b"\x18\x53\x80\x67") + 4
    assert content[begin] == 1  # a length of 8 bytes
    for unknown in (b"\x01" + b"\xff" * 7, b"\x01" + bytes(7)):
        path.write_bytes(content[:begin] + unknown + content[begin + 8 :])
        np.testing.assert_array_equal(read(open_video(path)), frames)


@pytest.mark.parametrize("suffix", [".h264", ".avi"])
def test_without_time_stamps_of_display_frames_come_in_the_order_of_display(coded, tmp_path, suffix):
    """A raw stream has no stamps at all, an AVI those of decoding: with B-frames another order."""
    path, frames = coded
    bare = write_video(tmp_path / f"clip{suffix}", moving_pattern(30, *SIZE), gop=12, b_frames=2)
    source = open_video(bare)
    np.testing.assert_array_equal(read(source), frames)
    check_any_range(source, frames)
    assert source.times == list(range(31)) and source.tags.time_base == Fraction(1, 25)
    if suffix == ".h264":
        assert source.description["order"] == "by decoding"
        assert "has no time stamps" in source.facts.warnings[0]
        given = open_video(bare, rate=50.0)
        assert given.tags.time_base == Fraction(1, 50) and given.description["frames_per_second"] == "50"
    else:
        with pytest.raises(InputError, match="--rate: .* has a rate of its own"):
            open_video(bare, rate=50.0)


def test_a_stream_of_key_frames_without_time_stamps_has_an_assumed_rate(tmp_path):
    path = write_video(tmp_path / "a.mjpeg", moving_pattern(20, *SIZE), codec="mjpeg", pixel_format="yuvj420p")
    source, given = open_video(path), open_video(path, rate=1000 / 3)
    assert "25 are assumed" in source.facts.warnings[0] and source.tags.rate == 25
    assert given.tags.time_base == Fraction(3, 1000) and not any("assumed" in text for text in given.facts.warnings)
    np.testing.assert_array_equal(read(given), read(source))
    check_any_range(given, read(source))


def test_a_rate_is_refused_where_there_are_time_stamps(coded):
    with pytest.raises(InputError, match="--rate: .* has time stamps of its own"):
        open_video(coded[0], rate=50.0)


def test_frames_that_share_a_time_stamp_come_in_the_order_of_display(coded, tmp_path):
    """Matroska counts milliseconds."""
    path, frames = coded

    def faster(_, packet):
        packet.time_base = packet.time_base / 200
        return packet
    fast = copy_packets(path, tmp_path / "fast.mkv", faster)
    with av.open(str(fast)) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert len(set(stamps)) < len(stamps)
    source = open_video(fast, rate=5000.0)
    np.testing.assert_array_equal(read(source), frames)
    assert source.tags.time_base == Fraction(1, 5000) and np.diff(source.times).tolist() == [1] * 30
    assert "several frames at one time stamp" in source.facts.warnings[0]


@pytest.mark.parametrize(("codec", "options"), [
    ("libx264", {"x264-params": "keyint=12:min-keyint=12:open-gop=1:bframes=2:scenecut=0", "threads": "1"}),
    ("libx265", {"x265-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:scenecut=0:log-level=none"}),
    ("mpeg2video", {"g": "12", "bf": "2", "threads": "1"}), ("mpeg4", {"g": "12", "bf": "2", "threads": "1"})])
@pytest.mark.parametrize("begin", ["at a key frame", "between key frames"])
def test_what_lacks_its_key_frame_at_the_start_is_left_out(tmp_path, codec, options, begin):
    whole, keys = tmp_path / "whole.mkv", []
    with av.open(str(whole), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for index, rgb in enumerate(moving_pattern(40, *SIZE)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    def later(number, packet):
        if packet.is_keyframe:
            keys.append(packet.pts)
        return packet if (len(keys) > 1 if begin == "at a key frame" else number >= 5) else None
    cut = copy_packets(whole, tmp_path / "cut.mkv", later)
    frames, source = read(open_video(whole)), open_video(cut)
    first = round(keys[1] / 40)
    np.testing.assert_array_equal(read(source), frames[first:])
    check_any_range(source, frames[first:])
    with av.open(str(cut)) as container:
        stored = sum(packet.size > 0 for packet in container.demux(video=0))
    assert source.description.get("left_out", 0) == stored - source.num_frames
    assert source.times[0] == keys[1]  # sound stays where it was
    if "left_out" in source.description:
        assert "begins between key frames" in source.facts.warnings[0]


@pytest.mark.parametrize("bad", [[7], [0], [3, 4, 19]])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_damaged_frame_is_refused_by_its_number_or_replaced(tmp_path, bad, share):
    """FFmpeg decodes a JPEG picture whose second half is missing without a word."""
    chunks = [cv2.imencode(".jpg", rgb)[1].tobytes() for rgb in moving_pattern(20, *SIZE)]
    whole = read(open_video(write_avi(tmp_path / "whole.avi", chunks, b"MJPG", SIZE, 24)))
    for index in bad:
        chunks[index] = chunks[index][: int(share * len(chunks[index]))]
    path = write_avi(tmp_path / "bad.avi", chunks, b"MJPG", SIZE, 24)
    with pytest.raises(InputError, match=f"frame {bad[0]} is damaged.*--damaged repeat"):
        open_video(path)
    source = open_video(path, damaged="repeat")
    stands_in = {index: 1 if index == 0 else min(bad[0], index) - 1 if index < 10 else index - 1 for index in bad}
    expected = np.stack([whole[stands_in.get(index, index)] for index in range(20)])
    np.testing.assert_array_equal(read(source), expected)
    check_any_range(source, expected)
    assert source.description["damaged"] == bad and f"{len(bad)} frame" in source.facts.warnings[0]


def test_frames_that_are_made_from_a_damaged_one_are_replaced_too(coded, tmp_path):
    """Up to the next key frame they may show its faults, and the decoder says nothing of it."""
    path, frames = coded

    def damage(number, packet):
        if number == 14:
            packet.update(bytes(packet.size))
        return packet
    with av.open(str(path)) as container:
        numbers = [round(packet.pts * packet.time_base * 25) for packet in container.demux(video=0) if packet.size]
    bad = copy_packets(path, tmp_path / "bad.mkv", damage)
    source = open_video(bad, damaged="repeat")
    damaged = source.description["damaged"]
    assert numbers[14] in damaged and damaged == sorted(numbers[14:24])
    good = np.array(sorted(set(range(30)) - set(damaged)))
    np.testing.assert_array_equal(read(source)[good], frames[good])
    np.testing.assert_array_equal(read(source)[damaged[0]], frames[damaged[0] - 1])
    with pytest.raises(InputError):
        read(open_video(bad))


def test_nothing_of_a_whole_video_is_replaced(coded):
    source = open_video(coded[0], damaged="repeat")
    assert "damaged" not in source.description
    np.testing.assert_array_equal(read(source), coded[1])


def test_appended_transport_streams_follow_each_other(tmp_path):
    parts = []
    for name, count, flip in (("a.ts", 15, False), ("b.ts", 20, True)):
        frames = moving_pattern(count, *SIZE)
        parts.append(write_video(tmp_path / name, frames[:, ::-1] if flip else frames, gop=8))
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    source = open_video(both)
    expected = np.concatenate([read(open_video(part)) for part in parts])
    np.testing.assert_array_equal(read(source), expected)
    check_any_range(source, expected)
    assert source.facts.breaks == [15] and set(np.diff(source.times)) == {3600} and not source.has_clock
    assert "jump back before frame 15" in source.facts.warnings[0]


def test_time_stamps_that_begin_anew_after_33_bits_go_on(coded, tmp_path):
    path, frames = coded

    def late(_, packet):
        shift = int((2**33 / 90000 - 0.4) / packet.time_base)
        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
        return packet
    source = open_video(copy_packets(path, tmp_path / "late.ts", late))
    np.testing.assert_array_equal(read(source), frames)
    check_any_range(source, frames)
    assert set(np.diff(source.times)) == {3600} and source.facts.breaks == []


def test_windows_end_where_a_steady_video_lacks_frames(tmp_path):
    frames = [[frame] for frame in grey_frames(24)]
    times = [33 * index + index // 3 + (66 if index >= 17 else 0) for index in range(24)]
    source = open_video(write_planes(tmp_path / "gap.mkv", frames, "gray", times=times))
    assert source.facts.breaks == [17] and "missing before frame 17" in source.facts.warnings[0]
    varying = [int(time) for time in np.cumsum([40, 40, 80, 20, 60, 40, 90, 30] * 3)]
    source = open_video(write_planes(tmp_path / "vfr.mkv", frames, "gray", times=varying))
    assert source.facts.breaks == [] and "variable rate" in source.facts.lines[0] and source.facts.warnings == []


def test_a_cover_is_not_the_video(tmp_path, coded):
    path = tmp_path / "cover.mp4"
    with av.open(str(coded[0])) as original, av.open(str(path), "w") as target:
        cover = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 200, 100, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        video = target.add_stream_from_template(original.streams.video[0])
        frame = av.VideoFrame.from_ndarray(np.zeros((100, 200, 3), np.uint8), "rgb24").reformat(format="yuvj420p")
        frame.pts = 0
        target.mux([*cover.encode(frame), *cover.encode(None)])
        for packet in original.demux(video=0):
            if packet.size:
                packet.stream = video
                target.mux(packet)
    source = open_video(path)
    assert (source.height, source.width) == SIZE and source.facts.warnings == []
    np.testing.assert_array_equal(read(source), coded[1])


@pytest.mark.parametrize("default", [None, 0])
def test_of_several_videos_the_default_one_or_the_largest_is_read(tmp_path, default):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as target:
        streams = []
        for number, (height, width) in enumerate([(24, 32), (48, 64)]):
            stream = target.add_stream("ffv1", rate=25)
            stream.height, stream.width, stream.pix_fmt = height, width, "gray"
            stream.disposition = av.stream.Disposition.default if number == default else 0
            streams.append(stream)
        for index in range(20):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(np.full((stream.height, stream.width), 5 * index, np.uint8), "gray")
                frame.pts = index
                target.mux(stream.encode(frame))
        for stream in streams:
            target.mux(stream.encode(None))
    source = open_video(path)
    assert source.width == (32 if default == 0 else 64)
    assert source.description["stream"] == (0 if default == 0 else 1)
    assert "several videos" in source.facts.warnings[0]


def test_a_codec_without_decoder_is_named(tmp_path):
    path = write_avi(tmp_path / "a.avi", [frame.tobytes() for frame in grey_frames(20)], b"ZQXW", SIZE, 24)
    with pytest.raises(InputError, match="codec 'ZQXW' has no decoder here"):
        open_video(path)


def test_a_plain_video_has_no_more_to_tell(coded):
    source = open_video(coded[0])
    assert source.facts == Facts([], lines=["30 frames, 40 ms apart"], warnings=[])
    assert set(source.description) == {"codec", "pixel_format", "frames_per_second", "colour_matrix", "colour_range",
                                       "luma"}
