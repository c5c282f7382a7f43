"""Bad input for upscaling a video: one clear line, status 2, nothing half-written."""

from __future__ import annotations

import pytest
from stages import assert_refused
from upscaling import upscale


@pytest.mark.parametrize(("more", "words"), [
    (("--start", 40), "has 40 frames"),
    (("--start", 5, "--stop", 5), "no range"),
    (("--part", "3/2"), "expected I/N"),
    (("--quality", 80), "0 to 63"),
    (("--tile", 3), "at least 32"),
    (("--quality", 0, "--codec", "ffv1"), "ffv1 has none"),
    (("--back_projection", 2), "does nothing for a video"),
    (("--codec", "prores"), "cannot keep yuv420p"),
    (("--device", "cuda"), "no GPU"),
    (("--segments", 4), "segment"),
])
def test_wrong_settings_are_refused(trained, clip, tmp_path, more, words):
    assert_refused(upscale(trained, clip, tmp_path / "out.mp4", *more), words)
    assert not list(tmp_path.iterdir())


def test_wrong_files_are_refused(trained, clip, rich, tmp_path):
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes())
    for source, target, words in ((tmp_path / "none.mp4", tmp_path / "out.mp4", "not found"),
                                  (clip.with_name("cl*.mp4"), tmp_path / "out.mp4", "is a pattern, and upscale takes"),
                                  (text, tmp_path / "out.mp4", "cannot be read as a video"),
                                  (clip, tmp_path / "out.avi", ".mkv"),
                                  (clip, tmp_path / "no" / "out.mp4", "not found; make it or choose another --output"),
                                  (rich, tmp_path / "out.mp4", "subtitle stream"),
                                  (clip, other, "exists")):
        assert_refused(upscale(trained, source, target), words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.mp4", "other.mp4"]


def test_segments_of_another_upscaling_are_kept(trained, clip, tmp_path):
    target = tmp_path / "out.mp4"
    assert upscale(trained, clip, target, "--segment", 9, "--part", "1/2").returncode == 0
    assert_refused(upscale(trained, clip, target, "--segment", 8), "another upscaling")


def test_settings_that_do_nothing_for_images_are_refused(trained, tmp_path):
    for name, value in (("codec", "hevc"), ("quality", 3), ("segment", 7), ("back_projection", 1)):
        done = upscale(trained, tmp_path, tmp_path / "out", f"--{name}", value)
        assert_refused(done, f"--{name.replace('_', '-')}: does nothing for a folder of images")
