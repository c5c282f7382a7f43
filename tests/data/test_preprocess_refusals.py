"""Bad input for the preprocessing: one clear line, status 2, nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import xarray
from files import contents
from patterns import moving_pattern
from scipy.io import netcdf_file
from stages import assert_refused, run_stage
from videos import write_video


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
    ("truncated after its index", "truncated"), ("text", "cannot be read as a video"), ("audio", "no video stream"),
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
    ((), ["give exactly one of --video, --frames and --field"]),
    (("--video", "a.mp4", "--frames", "b"), ["--video and --frames"]),
    (("--field", "a.nc"), ["--field and --variable go together"]),
    (("--video", "a.mp4", "--shard", "3"), ["--shard", "did you mean '--shards'"]),
    (("--video", "a.mp4", "--shards", "many"), ["--shards", "int", "many"]),
    (("--video", "a.mp4", "--degradation.scale", "5"), ["--degradation.scale", "out of 2, 3, 4, found 5"]),
    (("--frames", "."), ["has no images"]),
])
def test_a_wrong_command_line_is_refused(tmp_path, arguments, words):
    assert_refused(run_stage("preprocess", *arguments, cwd=tmp_path), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["[]", "{", '{"fingerprint": 3}'])
def test_a_damaged_manifest_is_not_trained_on_and_made_anew_from_its_shards(clip, dataset, tmp_path, text):
    copy = shutil.copytree(dataset, tmp_path / "copy")
    before = {path.name: path.stat().st_mtime_ns for path in copy.glob("*.h5")}
    (copy / "dataset.json").write_text(text)
    assert_refused(run_stage("train", "--data", copy, "--out", tmp_path / "r"), "dataset.json")
    done = run_stage("preprocess", "--video", clip, "--shards", 5, "--out", copy)
    assert done.returncode == 0 and "dataset.json" in done.stderr, done.stderr
    assert (copy / "dataset.json").read_bytes() == (dataset / "dataset.json").read_bytes()
    assert before == {path.name: path.stat().st_mtime_ns for path in copy.glob("*.h5")}


def test_a_dataset_json_of_somebody_else_is_kept(clip, tmp_path):
    (tmp_path / "dataset.json").write_text("[1]")
    assert_refused(run_stage("preprocess", "--video", clip, "--shards", 5, "--out", tmp_path), "dataset.json")
    assert (tmp_path / "dataset.json").read_text() == "[1]"


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


def test_a_field_with_a_dimension_twice_is_refused(tmp_path):
    with netcdf_file(tmp_path / "f.nc", "w") as file:
        for name, size in (("time", 40), ("y", 32)):
            file.createDimension(name, size)
        file.createVariable("u", "f", ("time", "y", "time"))[:] = np.ones((40, 32, 40), np.float32)
    done = run_stage("preprocess", "--field", tmp_path / "f.nc", "--variable", "u", "--out", tmp_path / "d")
    assert_refused(done, "f.nc: u is", "('time', 'y', 'time')", "must hold numbers over (time, y, x)")


@pytest.mark.parametrize(("value", "words"), [(np.inf, "has infinite values"), (9.96921e36, "9.97e+36 in frame 3")])
def test_values_that_are_none_are_refused(tmp_path, value, words):
    """Such as a fill value that the file does not declare."""
    values = np.random.default_rng(0).normal(size=(40, 32, 40)).astype(np.float32)
    values[3, 2, 2] = value
    dataset = xarray.Dataset({"u": (("time", "y", "x"), values)})
    dataset.to_netcdf(tmp_path / "f.nc", encoding={"u": {"_FillValue": None}})
    done = run_stage("preprocess", "--field", tmp_path / "f.nc", "--variable", "u", "--out", tmp_path / "d")
    assert_refused(done, "f.nc", words)


def test_a_store_of_pickled_objects_is_not_opened(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch '{tmp_path}/pwned'",)

    array = {"zarr_format": 2, "shape": [40, 32, 40], "chunks": [40, 32, 40], "dtype": "|O", "compressor": None,
             "order": "C", "fill_value": None, "filters": [{"id": "pickle", "protocol": 5}]}
    for name, text in ((".zgroup", {"zarr_format": 2}), ("u/.zarray", array),
                       ("u/.zattrs", {"_ARRAY_DIMENSIONS": ["time", "y", "x"]})):
        (tmp_path / "f.zarr" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f.zarr" / name).write_text(json.dumps(text))
    (tmp_path / "f.zarr" / "u" / "0.0.0").write_bytes(pickle.dumps(Payload()))
    done = run_stage("preprocess", "--field", tmp_path / "f.zarr", "--variable", "u", "--out", tmp_path / "d",
                     environment={"NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE": "1"})  # as numcodecs before 0.16.6 is
    assert_refused(done, ".zarray: holds pickled objects")
    assert not (tmp_path / "pwned").exists()


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
