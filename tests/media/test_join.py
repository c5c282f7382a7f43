"""Joined videos: the time stamps and tags of the source, in every container."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from patterns import moving_pattern

from hpc_vsr.media.video_join import join_segments
from hpc_vsr.media.video_sink import Encoding, write_segment
from hpc_vsr.media.video_source import open_video

NUM_FRAMES, RATE, BLOCK = 8, 48000, 1024


def write_with_sound(path: Path, codec: str, tags: dict[str, str] | None = None) -> Path:
    """8 frames at 25 a second with B-frames, and sound whose first block AAC puts before the time 0."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt, video.options = 64, 48, "yuv420p", {"bf": "2", "threads": "1"}
        sound = container.add_stream(codec, rate=RATE, layout="mono")
        for stream in (container, video):
            stream.metadata.update(tags or {})
        for index, rgb in enumerate(moving_pattern(NUM_FRAMES, 48, 64)):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for index in range(15):
            wave = np.sin(np.arange(BLOCK) / 20 + index)[None]
            wave, form = (wave.astype(np.float32), "fltp") if codec == "aac" else ((2e4 * wave).astype(np.int16), "s16")
            frame = av.AudioFrame.from_ndarray(wave, format=form, layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, BLOCK * index, Fraction(1, RATE)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


def join(source: Path, target: Path) -> Path:
    """Encode the frames of a source anew, and join them with what it has beside them."""
    video, segment = open_video(source), target.with_name("segment.nut")
    encoding = Encoding("h264", 16, video.planes("yuv420p"), 48, 64, video.tags)
    write_segment(segment, video.read_planes(0, NUM_FRAMES, "yuv420p"), encoding)
    join_segments(target, [segment], encoding, source, video.times, True, "made by a test")
    return target


def stamps(path: Path, kind: str) -> list[float]:
    """Return the times of the packets of a kind, in milliseconds and in order."""
    with av.open(str(path)) as container:
        return sorted(float(1000 * packet.pts * packet.time_base) for packet in container.demux()
                      if packet.size and packet.stream.type == kind)


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("codec, source", [("aac", ".mp4"), ("aac", ".mkv"), ("pcm_s16le", ".mov")])
def test_every_frame_and_sound_keeps_its_time(tmp_path, codec, source, ending):
    """Also sound that begins before 0; Matroska rounds to milliseconds."""
    made = write_with_sound(tmp_path / f"in{source}", codec)
    joined = join(made, tmp_path / f"out{ending}")
    assert stamps(joined, "video") == [40 * index for index in range(NUM_FRAMES)]
    sound = stamps(joined, "audio")
    begin = -BLOCK if codec == "aac" else 0
    np.testing.assert_allclose(sound, [1000 * (begin + BLOCK * index) / RATE for index in range(len(sound))], atol=0.51)
    assert len(sound) == len(stamps(made, "audio")) >= 15
    with av.open(str(joined)) as container:
        assert [round(1000 * frame.time) for frame in container.decode(video=0)] == stamps(joined, "video")


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_the_encoder_of_the_source_is_not_said_of_the_copy(tmp_path, ending):
    """However the container writes the name of the tag."""
    tags = {"ENCODER": "Brand X", "ENCODER_SETTINGS": "Brand X --fast", "Encoder-eng": "Brand X", "ARTIST": "someone",
            "BPS": "9999 of Brand X", "title": "A diamond"}
    joined = join(write_with_sound(tmp_path / "in.mkv", "aac", tags), tmp_path / f"out{ending}")
    with av.open(str(tmp_path / "in.mkv")) as source, av.open(str(joined)) as copy:
        assert "Brand X" in str(source.streams.video[0].metadata)
        found = {key.lower(): value for part in (copy, *copy.streams) for key, value in part.metadata.items()}
    assert not any("Brand X" in value for value in found.values()), found
    assert found["title"] == "A diamond" and found["artist"] == "someone" and found["comment"] == "made by a test"
