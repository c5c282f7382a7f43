"""The preprocessing as a user runs it: restart and damage."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time

import cv2
import h5py
import numpy as np
import pytest
import xarray
from files import contents
from patterns import moving_pattern
from stages import assert_refused, run_code, run_stage, start_stage
from videos import write_video
from waiting import wait_until

from hpc_vsr.data.degradation import Degradation
from hpc_vsr.data.degrade import degrade
from hpc_vsr.media.video_source import open_video
from hpc_vsr.system.lock import only_writer


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


@pytest.mark.parametrize("shares, lone", [((0.7, 0.1, 0.2), ["val"]), ((0.6, 0.2, 0.2), []), ((0.8, 0.1, 0.1),
                                          ["val", "test"])])
def test_a_split_of_one_sample_is_told(clip, tmp_path, shares, lone):
    """40 frames are 5 or 8 for a tenth or a fifth, and so 1 or 4 samples."""
    words = [f"--split.{name}={share}" for name, share in zip(("train", "val", "test"), shares, strict=True)]
    command = ("preprocess", "--video", clip, "--shards", 3, "--out", tmp_path / "d", *words)
    for done, output in ((run_stage(*command, "--dry-run"), "stdout"), (run_stage(*command), "stderr")):
        assert done.returncode == 0, done.stderr
        told = [line.split("split ")[1].split()[0] for line in getattr(done, output).splitlines() if "single" in line]
        assert told == lone
    assert [entry["samples"] == 1 for entry in json.loads((tmp_path / "d" / "dataset.json").read_text())["shards"]
            ] == [name in lone for name in ("train", "val", "test")]


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
    written = max(path.stat().st_mtime for path in dataset.iterdir())
    wait_until(lambda: time.time() > written + 1, "another time stamp: those in HDF5 are whole seconds")
    done = run_stage("preprocess", "--video", clip, "--shards", 5, "--out", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "other") == contents(dataset)


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.6, 0.9])
def test_killed_it_resumes_to_the_same_bytes(clip, dataset, tmp_path, moment):
    out = tmp_path / "d"
    command = ("preprocess", "--video", clip, "--shards", 5, "--out", out)
    process = start_stage(*command)
    wanted = 1 + int(moment * 5)  # kill when that many shards, finished or begun, are there
    wait_until(lambda: process.poll() is not None or len([*out.glob("*.h5"), *out.glob(".*")]) >= wanted, "a shard")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = run_stage(*command)
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


def test_memory_does_not_grow_with_the_length_of_the_video(tmp_path):
    """Peak memory of a video five times as long stays within 10 MB, where its frames take 70 MB."""
    peaks = []
    for num_frames in (30, 150):
        path = write_video(tmp_path / f"{num_frames}.mkv", np.repeat(moving_pattern(30, 360, 640), num_frames // 30, 0),
                           codec="mpeg4")
        code = ("import sys; from hpc_vsr.system.memory import peak_memory; from hpc_vsr.preprocess import main;"
                "main(sys.argv[1:]); print(peak_memory())")
        done = run_code(code, "--video", path, "--shards", 3, "--out", tmp_path / f"d{num_frames}")
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 10_000_000, peaks
