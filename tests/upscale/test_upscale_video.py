"""A video through `upscale`: what it keeps, how it goes on after a kill, how tasks share it, what it refuses."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from machine import find_mpiexec
from repository import SAMPLE
from stages import assert_refused, run_stage, start_stage
from upscaling import upscale
from videos import TIMES, write_rich
from waiting import wait_until

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.degrade import degrade
from hpc_vsr.media.video_sink import choose_codec
from hpc_vsr.media.video_source import open_video
from hpc_vsr.system.lock import only_writer

pytestmark = pytest.mark.slow

def packets(path: Path, kind: str) -> list[tuple]:
    """(time in ms, bytes) of the packets of a kind."""
    with av.open(str(path)) as container:
        return [(round(1000 * packet.pts * packet.time_base), bytes(packet)) for packet in container.demux()
                if packet.size and packet.stream.type == kind]


@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
def test_all_but_the_size_stays(trained, rich, tmp_path, suffix):
    source, target = rich, tmp_path / f"out{suffix}"
    if suffix == ".mov":  # whose subtitles are of another kind
        source = tmp_path / "plain.mov"
        remux(rich, source)
    done = upscale(trained, source, target, "--segment", 5)
    assert done.returncode == 0, done.stderr
    before, after = open_video(source), open_video(target)
    assert (after.height, after.width, after.num_frames) == (2 * before.height, 2 * before.width, before.num_frames)
    assert [round(1000 * time * after.tags.time_base) for time in after.times[:-1]] == TIMES
    for name in ("pixel_format", "matrix", "primaries", "transfer", "full_range", "rotation", "pixel_aspect"):
        assert getattr(after.tags, name) == getattr(before.tags, name), name
    assert packets(target, "audio") == packets(source, "audio") != []
    assert packets(target, "subtitle") == packets(source, "subtitle")
    with av.open(str(source)) as one, av.open(str(target)) as other:
        assert other.metadata["title" if "title" in other.metadata else "TITLE"] == "A diamond"
        assert [chapter["metadata"]["title"] for chapter in other.chapters()] == ["first"] == [
            chapter["metadata"]["title"] for chapter in one.chapters()]
    assert not list(tmp_path.glob("*.parts"))


def remux(source: Path, target: Path) -> None:
    """Copy picture and sound into another container."""
    with av.open(str(source)) as one, av.open(str(target), "w") as other:
        streams = {stream.index: other.add_stream_from_template(stream) for stream in one.streams
                   if stream.type != "subtitle"}
        next(iter(streams.values())).set_display_rotation(90)
        other.metadata["title"] = "A diamond"
        other.set_chapters(one.chapters())
        for packet in one.demux([one.streams[index] for index in streams]):
            if packet.size:
                packet.stream = streams[packet.stream.index]
                other.mux(packet)


@pytest.mark.parametrize(("pixel_format", "size"), [("yuv420p10le", (48, 64)), ("yuv422p", (48, 64)),
                                                   ("yuv420p", (50, 62)), ("gray", (48, 64)), ("yuv444p", (49, 63))])
def test_depth_and_odd_sizes_stay(trained, tmp_path, pixel_format, size):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    write_rich(source, pixel_format, size, "ffv1" if pixel_format == "gray" else "libx264")
    done = upscale(trained, source, target, "--codec", "ffv1")
    assert done.returncode == 0, done.stderr
    before, after = open_video(source), open_video(target)
    for name in ("matrix", "full_range", "rate"):
        assert getattr(after.tags, name) == getattr(before.tags, name), name
    assert after.tags.pixel_format == pixel_format and (after.height, after.width) == (2 * size[0], 2 * size[1])


def test_chroma_and_luma_are_those_of_the_source(trained, rich, tmp_path):
    """Reduced again, the colours are the source's: nothing is mixed up, shifted or stretched."""
    target = tmp_path / "out.mkv"
    assert upscale(trained, rich, target, "--codec", "ffv1").returncode == 0
    before = list(open_video(rich).read_planes(0, 12, "yuv420p"))
    after = list(open_video(target).read_planes(0, 12, "yuv420p"))
    for one, other in zip(before[3:9], after[3:9], strict=True):
        for plane, large in zip(one, other, strict=True):
            small = large.reshape(plane.shape[0], 2, plane.shape[1], 2).mean((1, 3))
            assert np.corrcoef(plane.ravel(), small.ravel())[0, 1] > 0.95


def test_killed_it_resumes_to_the_same_file(trained, clip, tmp_path):
    whole, target = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    assert upscale(trained, clip, whole, "--segment", 6).returncode == 0
    process = start(trained, clip, target)
    wait_for_segments(target, 2, process)
    process.kill()
    process.wait()
    assert not target.exists()
    done = upscale(trained, clip, target, "--segment", 6)
    assert done.returncode == 0 and "finished before" in done.stderr, done.stderr
    assert target.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "whole.mp4"]
    again = upscale(trained, clip, target, "--segment", 6)
    assert again.returncode == 0 and f"{target}: finished before" in again.stderr


def start(run: Path, source: Path, target: Path, *more) -> subprocess.Popen:
    return start_stage("upscale", "--run", run, "--input", source, "--output", target, "--precision", "fp32",
                       "--segment", 6, *more)


def wait_for_segments(target: Path, count: int, process: subprocess.Popen) -> None:
    folder = target.with_name(f"{target.name}.parts")
    wait_until(lambda: process.poll() is not None or len(list(folder.glob("segment-*.sha256"))) >= count, "a segment")
    assert process.poll() is None, process.stderr.read()


def test_asked_to_end_it_leaves_nothing_half_written(trained, clip, tmp_path):
    target = tmp_path / "out.mp4"
    process = start(trained, clip, target)
    wait_for_segments(target, 1, process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode != 0 and not target.exists()
    assert upscale(trained, clip, target, "--segment", 6).returncode == 0


@pytest.mark.mpi
def test_ranks_make_the_same_file(trained, clip, tmp_path):
    alone, together = tmp_path / "alone.mp4", tmp_path / "together.mp4"
    assert upscale(trained, clip, alone, "--segment", 7).returncode == 0
    done = run_stage("upscale", "--run", trained, "--input", clip, "--output", together, "--precision", "fp32",
                     "--segment", 7, launcher=(find_mpiexec(), "-n", "3"))
    assert done.returncode == 0, done.stderr
    assert together.read_bytes() == alone.read_bytes()


def test_tasks_of_an_array_make_the_same_file(trained, clip, tmp_path):
    alone, shared = tmp_path / "alone.mp4", tmp_path / "shared.mp4"
    assert upscale(trained, clip, alone, "--segment", 9).returncode == 0
    for part in ("2/2", "1/2"):
        done = upscale(trained, clip, shared, "--segment", 9, "--part", part)
        assert done.returncode == 0 and not shared.exists(), done.stderr
    assert "joins them" in done.stderr
    done = upscale(trained, clip, shared, "--segment", 9)
    assert done.returncode == 0, done.stderr
    assert shared.read_bytes() == alone.read_bytes()


def test_an_element_that_is_submitted_again_leaves_to_another_what_it_is_making(trained, clip, tmp_path):
    alone, target = tmp_path / "alone.mp4", tmp_path / "out.mp4"
    assert upscale(trained, clip, alone, "--segment", 20).returncode == 0
    folder = tmp_path / "out.mp4.parts"
    folder.mkdir()
    with only_writer(folder, ".segment-00001.lock"):  # as an element that still runs
        done = upscale(trained, clip, target, "--segment", 20, "--part", "1/1")
    assert done.returncode == 0 and "1 of 2 segments are there" in done.stderr, done.stderr
    done = upscale(trained, clip, target, "--segment", 20)  # the last job makes what is missing
    assert done.returncode == 0 and target.read_bytes() == alone.read_bytes(), done.stderr


def test_tasks_that_begin_at_once_do_not_disturb_each_other(trained, clip, tmp_path):
    target = tmp_path / "out.mp4"
    together = [start(trained, clip, target, "--part", f"{index}/3") for index in (1, 2, 3)]
    assert [process.wait(timeout=300) for process in together] == [0, 0, 0], [p.stderr.read() for p in together]
    done = upscale(trained, clip, target, "--segment", 6)
    assert done.returncode == 0 and "7 finished before" in done.stderr, done.stderr


def test_a_part_of_the_frames_begins_at_zero(trained, rich, tmp_path):
    whole, part = tmp_path / "whole.mkv", tmp_path / "part.mkv"
    assert upscale(trained, rich, whole, "--codec", "ffv1").returncode == 0
    assert upscale(trained, rich, part, "--codec", "ffv1", "--start", 3, "--stop", 9).returncode == 0
    found = open_video(part)
    assert [round(1000 * time * found.tags.time_base) for time in found.times[:-1]] == [
        moment - TIMES[3] for moment in TIMES[3:9]]
    frames = list(open_video(whole).read_planes(3, 9, "yuv420p"))
    for one, other in zip(found.read_planes(0, 6, "yuv420p"), frames, strict=True):
        assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))
    sound = packets(part, "audio")
    assert 0 <= sound[0][0] < 22 and sound[-1][0] < TIMES[9] - TIMES[3]


def test_compared_the_left_half_is_bicubic(trained, rich, tmp_path):
    plain, split = tmp_path / "plain.mkv", tmp_path / "split.mkv"
    assert upscale(trained, rich, plain, "--codec", "ffv1").returncode == 0
    assert upscale(trained, rich, split, "--codec", "ffv1", "--compare", "true").returncode == 0
    small = next(open_video(rich).read_planes(5, 6, "yuv420p"))[0]
    one, other = (next(open_video(path).read_planes(5, 6, "yuv420p"))[0] for path in (plain, split))
    assert np.array_equal(one[:, 66:], other[:, 66:])
    bicubic = cv2.resize(small.astype(np.float32), (128, 96), interpolation=cv2.INTER_CUBIC)
    assert np.abs(bicubic.clip(16, 235)[:, :62] - other[:, :62]).max() <= 1


def test_av1_is_joined_where_it_can_be_held(trained, clip, tmp_path):
    for suffix in (".mkv", ".mp4"):
        done = upscale(trained, clip, tmp_path / f"out{suffix}", "--codec", "av1", "--segment", 6, "--stop", 12)
        assert done.returncode == 0, done.stderr
        after = open_video(tmp_path / f"out{suffix}")
        assert (after.tags.codec, after.num_frames, after.height, after.width) == ("libdav1d", 12, 96, 128)
    assert_refused(upscale(trained, clip, tmp_path / "out.mov", "--codec", "av1"), "a .mov file cannot hold av1")


def test_the_bundled_low_resolution_clip_is_the_degraded_sample():
    low = [frame[0] for frame, _ in open_video(SAMPLE.with_name("diamond_lr.mkv")).read(0, 22)]
    for (frame, _), lr in zip(open_video(SAMPLE).read(87, 109), low, strict=True):
        assert np.array_equal(degrade(frame, Degradation("BD", 3.0, 2))[0], lr)


def test_rgb_becomes_ycc_of_the_same_colours(trained, tmp_path):
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    write_rich(source, "bgr0", codec="ffv1")
    done = upscale(trained, source, target)
    assert done.returncode == 0 and "h264 yuv444p" in done.stderr, done.stderr
    for (small, _), (large, _) in zip(*(open_video(path, "rgb").read(2, 10) for path in (source, target)), strict=True):
        assert np.abs(small.mean((1, 2)) - large.mean((1, 2))).max() < 2


@pytest.mark.parametrize(("codec", "name", "size", "kept"), [
    ("auto", "yuv420p", (45, 63), "ffv1 yuv420p"), ("auto", "yuv422p", (45, 64), "h264 yuv422p"),
    ("auto", "yuv422p", (45, 63), "ffv1 yuv422p"), ("auto", "yuv444p", (45, 63), "h264 yuv444p"),
    ("h264", "yuv420p", (45, 63), "h264 yuv444p"), ("prores", "yuv422p10le", (45, 63), "prores yuv422p10le")])
def test_a_codec_takes_sizes_that_cut_a_chroma_pixel(codec, name, size, kept):
    """Without another subsampling if it may choose."""
    assert " ".join(choose_codec(codec, name, *size)) == kept


@pytest.mark.parametrize(("codec", "name", "kept"), [
    ("auto", "gray", "h264 gray"), ("auto", "yuv420p12le", "hevc yuv420p12le"), ("auto", "gray16le", "ffv1 gray16le"),
    ("av1", "gray10le", "av1 yuv420p10le"), ("prores", "yuv422p10le", "prores yuv422p10le"),
    ("h264", "yuv440p", "h264 yuv444p")])
def test_a_codec_keeps_depth_and_colours(codec, name, kept):
    assert " ".join(choose_codec(codec, name, 48, 64)) == kept


@pytest.mark.parametrize("codec", ["ffv1", "h264"])
def test_full_range_stays_full_range(trained, tmp_path, codec):
    source, target = SAMPLE.with_name("diamond_lr.mkv"), tmp_path / "out.mkv"
    done = upscale(trained, source, target, "--codec", codec, "--stop", 2)
    assert done.returncode == 0 and "warning" not in done.stderr, done.stderr
    small, large = (next(open_video(path).read(0, 1))[0] for path in (source, target))
    assert open_video(target).tags.full_range and abs(small.mean() - large.mean()) < 0.5


def test_a_sharp_video_is_warned_of(trained, tmp_path):
    done = upscale(trained, SAMPLE, tmp_path / "out.mp4", "--stop", 2)
    assert done.returncode == 0 and "was trained for 1.5" in done.stderr, done.stderr


def test_a_dry_run_tells_the_plan_and_writes_nothing(trained, clip, tmp_path):
    done = upscale(trained, clip, tmp_path / "out.mp4", "--dry-run")
    assert done.returncode == 0 and not list(tmp_path.iterdir())
    lossless = upscale(trained, clip, tmp_path / "out.mp4", "--dry-run", "--quality", 0)
    assert "h264 yuv420p at quality 0" in lossless.stdout, lossless.stderr
    for words in ("segment = 100", "40 frames of", "64x48 to 128x96", "h264 yuv420p at quality 16", "1 segment"):
        assert words in done.stdout, done.stdout
