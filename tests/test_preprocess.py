"""The preprocessing as a user runs it: restart, damage, bad input."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import h5py
import numpy as np
import pytest
import xarray
from conftest import ROOT, assert_refused, moving_pattern, run_stage, write_video

from hpc_vsr.degrade import Degradation, degrade
from hpc_vsr.lock import only_writer
from hpc_vsr.sources.video import open_video


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_data_set_holds_the_frames_of_the_video_and_their_degradation(clip, dataset):
    content = json.loads((dataset / "dataset.json").read_text())
    frames = {index: frame for index, (frame, _) in enumerate(open_video(clip).read(0, 40))}
    seen = set()
    for entry in content["shards"]:
        path = dataset / entry["name"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
        with h5py.File(path) as file:
            for index in range(entry["frames"]):
                number = entry["first_frame"] + index
                np.testing.assert_array_equal(file["frames/hr"][index], frames[number])
                np.testing.assert_array_equal(file["frames/lr"][index], degrade(frames[number], Degradation()))
            seen |= set(file["frame"][:])
            assert file.attrs["source"] == "clip.mp4" and file.attrs["dataset_fingerprint"] == content["fingerprint"]
    assert seen == {*range(2, 25), 29, *range(34, 38)}
    assert content["source"]["sha256"] == hashlib.sha256(clip.read_bytes()).hexdigest()
    assert content["splits"] == {"train": [0, 27], "val": [27, 32], "test": [32, 40]}
    assert sum(entry["samples"] for entry in content["shards"]) == len(seen) == 28


def test_the_same_command_again_writes_nothing(clip, dataset):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in dataset.glob("*.h5")}
    done = run_stage("preprocess", "--video", clip, "--shards", 5, "--out", dataset)
    assert done.returncode == 0 and "5 finished before" in done.stderr
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in dataset.glob("*.h5")}


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "swap", "manifest"])
def test_what_is_damaged_is_written_again_and_the_rest_is_kept(clip, dataset, tmp_path, damage):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    shards = sorted(copy.glob("*.h5"))
    if damage == "flip":
        data = bytearray(shards[1].read_bytes())
        data[len(data) // 2] ^= 1
        shards[1].write_bytes(data)
    elif damage == "truncate":
        shards[1].write_bytes(shards[1].read_bytes()[:1000])
    elif damage == "delete":
        shards[1].unlink()
    elif damage == "swap":
        shutil.copy(shards[0], shards[1])
    else:
        (copy / "dataset.json").unlink()
    done = run_stage("preprocess", "--video", clip, "--shards", 5, "--out", copy)
    assert done.returncode == 0, done.stderr
    assert f"{5 if damage == 'manifest' else 4} finished before" in done.stderr
    assert contents(copy) == contents(dataset)


def test_a_changed_frame_number_is_found_with_and_without_the_manifest(clip, dataset, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    for keep_manifest in (True, False):
        with h5py.File(copy / "test-00000-of-00001.h5", "r+") as file:
            file["frame"][0] = 7
        if not keep_manifest:
            (copy / "dataset.json").unlink()
        done = run_stage("preprocess", "--video", clip, "--shards", 5, "--out", copy)
        assert done.returncode == 0 and "4 finished before" in done.stderr
        assert contents(copy) == contents(dataset)


def test_a_second_process_on_the_folder_is_refused(clip, dataset, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    with only_writer(copy):
        done = run_stage("preprocess", "--video", clip, "--shards", 5, "--out", copy)
        assert_refused(done, "is writing into it", f"kill {os.getpid()}")
    assert run_stage("preprocess", "--video", clip, "--shards", 5, "--out", copy).returncode == 0


def test_shards_do_not_depend_on_time_or_folder(clip, dataset, tmp_path):
    time.sleep(1.1)  # time stamps in HDF5 are whole seconds
    done = run_stage("preprocess", "--video", clip, "--shards", 5, "--out", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "other") == contents(dataset)


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.6, 0.9])
def test_killed_and_started_again_it_finishes_with_the_same_bytes(clip, dataset, tmp_path, moment):
    out = tmp_path / "d"
    command = [sys.executable, "-m", "hpc_vsr.preprocess", "--video", str(clip), "--shards", "5", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    wanted = 1 + int(moment * 5)  # kill when that many shards, finished or begun, are there
    while process.poll() is None and len(list(out.glob("*.h5")) + list(out.glob(".*"))) < wanted:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert contents(out) == contents(dataset)


def test_a_dry_run_tells_the_plan_and_touches_nothing(clip, tmp_path):
    done = run_stage("preprocess", "--video", clip, "--shards", 5, "--out", tmp_path / "d", "--dry-run")
    assert done.returncode == 0 and not (tmp_path / "d").exists()
    for words in ("40 frames 64x48", "train    frames 0..26, 23 samples", "test     frames 32..39, 4 samples"):
        assert words in done.stdout


def test_images_make_the_same_data_set_as_the_video_they_are_of(tmp_path):
    frames = moving_pattern(20, 40, 48)
    (tmp_path / "png").mkdir()
    for index, rgb in enumerate(frames):
        cv2.imwrite(str(tmp_path / "png" / f"f{index}.png"), rgb[..., ::-1])
    write_video(tmp_path / "v.mov", frames, codec="png", pixel_format="rgb24")
    for name, source in (("a", ("--frames", tmp_path / "png")), ("b", ("--video", tmp_path / "v.mov"))):
        done = run_stage("preprocess", *source, "--channels", "rgb", "--shards", 3, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    for path in (tmp_path / "a").glob("*.h5"):
        with h5py.File(path) as ours, h5py.File(tmp_path / "b" / path.name) as theirs:
            assert ours["lr"].shape[1:] == (5, 3, 20, 24)
            for name in ("frames/lr", "frames/hr"):
                np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_field_stays_float_and_is_scaled_by_its_training_split(tmp_path):
    values = np.random.default_rng(0).normal(size=(30, 32, 40)).astype(np.float32)
    values[25:] *= 10  # extremes in the test split must not leak into the normalisation
    values[:, :3, :4] = np.nan
    array = xarray.DataArray(values, dims=("time", "y", "x"), attrs={"units": "m s-1"})
    xarray.Dataset({"u": array}).to_netcdf(tmp_path / "f.nc")
    done = run_stage("preprocess", "--field", tmp_path / "f.nc", "--variable", "u", "--shards", 4,
                     "--out", tmp_path / "d")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "d" / "dataset.json").read_text())
    train = values[: content["splits"]["train"][1]]
    assert content["value_range"] == [pytest.approx(np.nanmin(train)), pytest.approx(np.nanmax(train))]
    assert content["normalisation"]["offset"] == pytest.approx(np.nanmin(train))
    assert (content["units"], content["dtype"]) == ("m s-1", "float32")
    with h5py.File(tmp_path / "d" / "train-00000-of-00002.h5") as file:
        assert file["lr"].dtype == np.float32
        assert not file["frames/valid"][0, :3, :4].any() and file["frames/valid"][0, 3:].all()
        np.testing.assert_array_equal(file["frames/hr"][0, 0][3:], values[0, 3:])


# Bad input: one clear line, status 2, nothing half-written


def bad_video(kind: str, folder: Path, clip: Path) -> Path:
    path = folder / "bad.mp4"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    elif kind == "truncated after its index":
        fast = folder / "fast.mp4"
        with av.open(str(clip)) as source, av.open(str(fast), "w", options={"movflags": "faststart"}) as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
        path.write_bytes(fast.read_bytes()[: fast.stat().st_size * 2 // 3])
    elif kind == "text":
        path.write_text("this is not a video\n" * 100)
    elif kind == "audio":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=44100)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate = 44100
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    elif kind == "short":
        write_video(path, moving_pattern(4, 48, 64))
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize("kind, word", [
    ("missing", "not found"), ("empty", "is empty"), ("truncated", "truncated"),
    ("truncated after its index", "truncated"), ("text", "not a video"), ("audio", "no video stream"),
    ("short", "has 4 frames"), ("folder", "is a folder")])
def test_a_bad_video_is_refused(tmp_path, clip, kind, word):
    path = bad_video(kind, tmp_path, clip)
    done = run_stage("preprocess", "--video", path, "--out", tmp_path / "out")
    assert_refused(done, str(path), word)
    assert not (tmp_path / "out").exists()


def test_more_shards_than_samples_are_refused(tmp_path, clip):
    done = run_stage("preprocess", "--video", clip, "--shards", 29, "--out", tmp_path / "out")
    assert_refused(done, "shards", "29", "at most 28")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_another_data_set_is_refused_and_kept(clip, dataset):
    before = contents(dataset)
    for more in (("--shards", 4), ("--shards", 5, "--degradation.sigma", 2)):
        assert_refused(run_stage("preprocess", "--video", clip, *more, "--out", dataset), "another data set", "--out")
    assert contents(dataset) == before


def test_a_folder_with_other_files_is_refused_and_kept(clip, tmp_path):
    (tmp_path / "thesis.md").write_text("chapter 1")
    assert_refused(run_stage("preprocess", "--video", clip, "--out", tmp_path), "holds other files (thesis.md)")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.md"]


def test_a_folder_with_part_of_another_data_set_is_refused(clip, dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "d")
    (tmp_path / "d" / "dataset.json").unlink()
    done = run_stage("preprocess", "--video", clip, "--shards", 5, "--degradation.sigma", 2, "--out", tmp_path / "d")
    assert_refused(done, "part of another data set")


def test_a_folder_that_cannot_be_written_is_refused(clip):
    done = run_stage("preprocess", "--video", clip, "--out", "/proc/nowhere")
    assert_refused(done, "/proc/nowhere", "cannot be written")


@pytest.mark.parametrize("arguments, words", [
    ((), ["one source is wanted"]),
    (("--video", "a.mp4", "--frames", "b"), ["--video and --frames"]),
    (("--field", "a.nc"), ["--field and --variable go together"]),
    (("--video", "a.mp4", "--shard", "3"), ["--shard", "did you mean '--shards'"]),
    (("--video", "a.mp4", "--shards", "many"), ["--shards", "int", "many"]),
    (("--video", "a.mp4", "--degradation.scale", "3"), ["--degradation.scale", "3"]),
    (("--frames", "."), ["has no images"]),
])
def test_a_wrong_command_line_is_refused(tmp_path, arguments, words):
    assert_refused(run_stage("preprocess", *arguments, cwd=tmp_path), *words)
    assert not list(tmp_path.iterdir())


def test_a_damaged_manifest_is_refused(clip, dataset, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    for text in ("[]", "{", '{"fingerprint": 3}'):
        (copy / "dataset.json").write_text(text)
        assert_refused(run_stage("preprocess", "--video", clip, "--shards", 5, "--out", copy), str(copy))
    for text in ("[]", "{"):
        (copy / "dataset.json").write_text(text)
        assert_refused(run_stage("train", "--data", copy, "--out", tmp_path / "r"), "dataset.json")


@pytest.mark.parametrize("file_format", ["NETCDF3_CLASSIC", "NETCDF4"])
def test_a_truncated_field_is_refused(tmp_path, file_format):
    values = np.random.default_rng(0).normal(size=(40, 32, 40)).astype(np.float32)
    whole, cut = tmp_path / "whole.nc", tmp_path / "cut.nc"
    xarray.Dataset({"u": (("time", "y", "x"), values)}).to_netcdf(whole, format=file_format, engine="netcdf4",
                                                                unlimited_dims=["time"])
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    assert run_stage("preprocess", "--field", whole, "--variable", "u", "--out", tmp_path / "a").returncode == 0
    assert_refused(run_stage("preprocess", "--field", cut, "--variable", "u", "--out", tmp_path / "b"), "cut.nc")
    assert not (tmp_path / "b" / "dataset.json").exists()


def test_a_damaged_field_is_refused_where_it_is_damaged(tmp_path):
    values = np.random.default_rng(0).normal(size=(40, 32, 40)).astype(np.float32)
    path = tmp_path / "f.nc"
    array = xarray.Dataset({"u": (("time", "y", "x"), values)})
    array.to_netcdf(path, encoding={"u": {"zlib": True, "chunksizes": (1, 32, 40)}})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    done = run_stage("preprocess", "--field", path, "--variable", "u", "--out", tmp_path / "d")
    assert_refused(done, "f.nc: frame ", "cannot be read")
    assert not (tmp_path / "d" / "dataset.json").exists()


def test_memory_does_not_grow_with_the_length_of_the_video(tmp_path):
    """Peak memory of a video five times as long stays within 10 MB, where its frames take 70 MB."""
    peaks = []
    for num_frames in (30, 150):
        path = write_video(tmp_path / f"{num_frames}.mkv", np.repeat(moving_pattern(30, 360, 640), num_frames // 30, 0),
                           codec="mpeg4")
        code = ("import resource, sys; from hpc_vsr.preprocess import main; main(sys.argv[1:]);"
                "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)")
        done = subprocess.run([sys.executable, "-c", code, "--video", str(path), "--shards", "3", "--out",
                               str(tmp_path / f"d{num_frames}")], capture_output=True, text=True, check=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 10_000, peaks
