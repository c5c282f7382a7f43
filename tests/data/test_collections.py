"""Several recordings as one data set: its shards, what joins later, what is left out, refused and told."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal

import h5py
import numpy as np
import pytest
import xarray
from machine import find_mpiexec
from patterns import moving_pattern
from stages import assert_refused, run_stage, start_stage
from videos import write_planes, write_video
from waiting import wait_until


def recorded(folder) -> dict:
    return json.loads((folder / "dataset.json").read_text())


def files_in(folder) -> dict:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.h5")}


def untouched(folder) -> dict:
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*.h5")}


def test_the_shards_of_a_clip_are_those_of_its_own_data_set(recordings, collection, tmp_path):
    content = recorded(collection)
    assert [clip["name"] for clip in content["clips"]] == ["run1", "run2", "run10", "run11"]
    for clip in content["clips"]:
        video = recordings / f"{clip['name']}.mp4"
        alone = tmp_path / clip["name"]
        assert run_stage("preprocess", "--video", video, "--shards", 4, "--out", alone).returncode == 0
        own = recorded(alone)
        assert files_in(alone) == files_in(collection / clip["name"])
        assert {key: own[key] for key in clip if key != "name"} == {key: clip[key] for key in clip if key != "name"}
        assert clip["source"]["sha256"] == hashlib.sha256(video.read_bytes()).hexdigest()
    # frames without two at both ends: of 40, 5 are for val and 8 for test; of the others 5 and 6, 5 and 5, 5 and 5
    assert sum(entry["samples"] for clip in content["clips"] for entry in clip["shards"] if entry["split"] == "train"
               ) == (27 - 4) + (19 - 4) + (15 - 4) + (10 - 4)


@pytest.mark.mpi
@pytest.mark.parametrize("num_ranks", [2, 5])
def test_ranks_share_clips_and_parts_of_clips_and_write_the_same_bytes(recordings, collection, tmp_path, num_ranks):
    done = run_stage("preprocess", "--video", recordings / "*.mp4", "--shards", 4, "--out", tmp_path / "runs",
                     launcher=(find_mpiexec(), "-n", str(num_ranks)))
    assert done.returncode == 0, done.stderr
    assert files_in(tmp_path / "runs") == files_in(collection)
    ours, theirs = recorded(tmp_path / "runs"), recorded(collection)
    assert ours["clips"] == theirs["clips"] and ours["fingerprint"] == theirs["fingerprint"]


@pytest.mark.parametrize("by", ["time", "clip"])
def test_a_clip_that_is_added_later_leaves_the_others_alone(recordings, tmp_path, by):
    (tmp_path / "v").mkdir()
    for name in ("run1", "run10", "run11"):
        shutil.copy(recordings / f"{name}.mp4", tmp_path / "v")
    command = ("preprocess", "--video", tmp_path / "v" / "*.mp4", "--shards", 3, "--split.by", by, "--out",
               tmp_path / "d")
    assert run_stage(*command).returncode == 0
    before, first = untouched(tmp_path / "d"), recorded(tmp_path / "d")
    shutil.copy(recordings / "run2.mp4", tmp_path / "v")
    done = run_stage(*command)
    assert done.returncode == 0 and "9 finished before" in done.stderr, done.stderr
    after = recorded(tmp_path / "d")
    assert untouched(tmp_path / "d").items() > before.items()
    assert [clip["name"] for clip in after["clips"]] == ["run1", "run2", "run10", "run11"]
    assert [clip for clip in after["clips"] if clip["name"] != "run2"] == first["clips"]
    assert after["fingerprint"] != first["fingerprint"]


def test_by_clip_each_clip_is_whole_in_one_split(recordings, tmp_path):
    done = run_stage("preprocess", "--video", recordings / "*.mp4", "--split.by", "clip", "--shards", 2, "--out",
                     tmp_path / "d")
    assert done.returncode == 0, done.stderr
    splits = []
    for clip in recorded(tmp_path / "d")["clips"]:
        (split, limits), = clip["splits"].items()
        splits.append(split)
        assert limits == [0, clip["source"]["frames"]]
        centres = []
        for path in sorted((tmp_path / "d" / clip["name"]).glob("*.h5")):
            with h5py.File(path) as file:
                assert file.attrs["split"] == split
                centres += list(file["frame"][:])
        assert centres == list(range(2, clip["source"]["frames"] - 2))
    assert set(splits) == {"train", "val", "test"}


@pytest.mark.parametrize("moment", [1, 5, 11])
def test_killed_it_resumes_to_the_same_bytes(recordings, collection, tmp_path, moment):
    out = tmp_path / "runs"
    command = ("preprocess", "--video", recordings / "*.mp4", "--shards", 4, "--out", out)
    process = start_stage(*command)
    wait_until(lambda: process.poll() is not None or len([*out.rglob("*.h5")]) >= moment, "a shard")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = run_stage(*command)
    assert again.returncode == 0, again.stderr
    assert files_in(out) == files_in(collection) and recorded(out)["clips"] == recorded(collection)["clips"]


def test_copies_and_short_clips_are_left_out_and_told(recordings, collection, tmp_path):
    for path in recordings.iterdir():
        shutil.copy(path, tmp_path)
    shutil.copytree(collection, tmp_path / "d")
    before = untouched(tmp_path / "d")
    shutil.copy(tmp_path / "run2.mp4", tmp_path / "again.mp4")  # its name is before run2, which has its shards
    write_video(tmp_path / "short.mp4", moving_pattern(9, 48, 64))
    done = run_stage("preprocess", "--video", tmp_path / "*.mp4", "--shards", 4, "--out", tmp_path / "d")
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("warning:")]
    assert any("again.mp4: has the same content" in line and "run2.mp4, so it is left out" in line for line in told)
    assert any("short.mp4: has 9 frames" in line and "--split.by clip" in line for line in told)
    assert untouched(tmp_path / "d") == before
    by_clip = run_stage("preprocess", "--video", tmp_path / "*.mp4", "--split.by", "clip", "--dry-run", "--out",
                        tmp_path / "e")
    assert "short.mp4: 9 frames 64x48" in by_clip.stdout and not (tmp_path / "e").exists()


@pytest.mark.parametrize("kind, words", [
    ("text", ("bad.mp4: cannot be read as a video",)),
    ("deep", ("bad.mkv: has values of more than 8 bits", "run1.mp4 has 8 bits")),
    ("small", ("bad.mp4: is 64x14", "16x16"))])
def test_a_clip_that_does_not_fit_is_refused_by_name(recordings, tmp_path, kind, words):
    bad = tmp_path / ("bad.mkv" if kind == "deep" else "bad.mp4")
    if kind == "text":
        bad.write_text("this is not a video\n" * 100)
    elif kind == "small":
        write_video(bad, moving_pattern(20, 14, 64))
    else:
        plane = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) % 1024
        write_planes(bad, [[plane]] * 20, "gray10le")
    done = run_stage("preprocess", "--video", *recordings.glob("*.mp4"), bad, "--out", tmp_path / "d")
    assert_refused(done, *words)
    assert not (tmp_path / "d").exists()


def test_another_collection_and_one_that_lacks_a_clip_are_refused_and_kept(recordings, collection, dataset):
    before = files_in(collection), recorded(collection)
    video = recordings / "run1.mp4"
    for words, told in (((recordings / "run[12].mp4", "--shards", 4), "'run10', which is not given now"),
                        ((recordings / "*.mp4", "--degradation.sigma", 2), "another data set"),
                        ((video, "--shards", 3), "a collection of clips, and this is a data set of one source")):
        assert_refused(run_stage("preprocess", "--video", *words, "--out", collection), told, "--out")
    assert (files_in(collection), recorded(collection)) == before
    assert_refused(run_stage("preprocess", "--video", video, recordings / "run2.mp4", "--out", dataset),
                   "a data set of one source, and this is a collection")


def test_many_clips_are_a_short_plan(tmp_path):
    write_video(tmp_path / "a.mp4", moving_pattern(20, 48, 64))
    data = (tmp_path / "a.mp4").read_bytes()
    for number in range(60):  # a free box at the end makes each another file with the same frames
        (tmp_path / f"r{number}.mp4").write_bytes(data + (12).to_bytes(4, "big") + b"free" + number.to_bytes(4, "big"))
    (tmp_path / "a.mp4").unlink()
    done = run_stage("preprocess", "--video", tmp_path / "*.mp4", "--dry-run", "--out", tmp_path / "d")
    assert done.returncode == 0, done.stderr
    plan = done.stdout[done.stdout.index("source "):].splitlines()
    assert "60 clips, 1200 frames" in plan[0] and f"and 40 more, to {tmp_path / 'r59.mp4'}" in plan[21]
    assert "train    60 clips, 360 samples" in done.stdout and len(plan) == 26


def test_the_values_of_all_training_frames_make_the_range_of_fields(tmp_path):
    values = [np.random.default_rng(seed).normal(seed, 1, (20, 32, 40)).astype(np.float32) for seed in range(3)]
    values[1][15:] *= 10  # test frames
    for number, array in enumerate(values):
        data = xarray.DataArray(array, dims=("time", "y", "x"), attrs={"units": "m s-1"})
        xarray.Dataset({"u": data}).to_netcdf(tmp_path / f"f{number}.nc")
    done = run_stage("preprocess", "--field", *sorted(tmp_path.glob("*.nc")), "--variable", "u", "--shards", 3, "--out",
                     tmp_path / "d")
    assert done.returncode == 0, done.stderr
    train = np.stack([array[:10] for array in values])  # of 20 frames, val and test need five each
    assert recorded(tmp_path / "d")["value_range"] == [pytest.approx(train.min()), pytest.approx(train.max())]
