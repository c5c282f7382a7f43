"""Which clips the paths of a recipe stand for, in which order, and what they are called."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from hpc_vsr.data.recipe import Recipe
from hpc_vsr.media.clip_files import folders_without_images, is_collection, list_clips
from hpc_vsr.media.image_source import open_images
from hpc_vsr.system.errors import InputError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/run10.mp4", "runs/run2.mp4", "runs/run1.mp4", "a/2/video.mp4", "a/10/video.mp4", "a[1].mp4",
                 "images/exp10/f0.png", "images/exp9/f0.png", "images/notes/readme.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(option, *paths):
    return [clip.name for clip in list_clips(Recipe(**{option: list(map(Path, paths))}).sources, option)]


@pytest.mark.parametrize("option, paths, expected", [
    ("video", ["runs/*.mp4"], ["run1", "run2", "run10"]),
    ("video", ["runs/run10.mp4", "runs/run2.mp4"], ["run2", "run10"]),
    ("video", ["runs/*.mp4", "runs/../runs/run2.mp4"], ["run1", "run2", "run10"]),
    ("video", ["a/*/video.mp4"], ["2-video", "10-video"]),
    ("frames", ["images"], ["exp9", "exp10"]),
    ("frames", ["images/exp*"], ["exp9", "exp10"]),
    ("video", ["a[1].mp4", "runs/run1.mp4"], ["a1", "run1"]),
])
def test_clips_are_ordered_by_the_numbers_in_their_paths_and_have_names(folder, option, paths, expected):
    assert is_collection(list(map(Path, paths)), option) and names(option, *paths) == expected


@pytest.mark.parametrize("option, path", [("video", "a[1].mp4"), ("video", "runs/run1.mp4"),
                                          ("frames", "images/exp9"), ("frames", "nowhere")])
def test_one_file_or_folder_is_no_collection(folder, option, path):
    assert not is_collection([Path(path)], option)


def test_a_pattern_of_fields_is_one_field_and_several_fields_are_clips(folder):
    assert not is_collection([Path("out_*.nc")], "field")
    assert is_collection([Path("out_*.nc"), Path("later_*.nc")], "field")


def test_a_folder_without_images_among_those_with_images_is_known(folder):
    assert folders_without_images([Path("images")], "frames") == [Path("images/notes")]
    assert folders_without_images([Path("images/exp9")], "frames") == []


def test_a_pattern_without_a_match_and_clips_of_one_name_are_refused(folder):
    with pytest.raises(InputError, match="nothing matches this pattern"):
        names("video", "runs/*.mov")
    for side in ("x", "y"):
        (folder / side / "2").mkdir(parents=True)
        (folder / side / "2" / "video.mp4").touch()
    with pytest.raises(InputError, match="would have the name '2-video'"):
        names("video", "x/2/video.mp4", "y/2/video.mp4")


def picture(grey):
    return cv2.imencode(".png", np.full((20, 24), grey, np.uint8))[1].tobytes()


def test_images_in_folders_of_the_folder_are_told(tmp_path):
    """Beside images they are left out, which a warning says; without any, the message names them."""
    for folder in ("b", "a", "notes"):
        (tmp_path / folder).mkdir()
    for folder in ("a", "b"):
        (tmp_path / folder / "1.png").write_bytes(picture(0))
    with pytest.raises(InputError, match=r"has no images itself, but the folders in it have \(a, b\); name one"):
        open_images(tmp_path, "y")
    for number in (1, 2, 3):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    source = open_images(tmp_path, "y")
    assert source.num_frames == 3
    assert [line for line in source.facts.warnings if "folders in it have images too (a, b)" in line]
