"""Segments: the same frames give the same bytes, whatever the memory held before."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from videos import write_video

from hpc_vsr.media.video_sink import QUALITY, Encoding, write_segment
from hpc_vsr.media.video_source import open_video

M_PERTURB = -6  # glibc's malloc.h: with which byte it fills the memory that it gives


@pytest.fixture
def fill_memory():
    libc = ctypes.CDLL("libc.so.6")
    yield lambda byte: libc.mallopt(M_PERTURB, byte)
    libc.mallopt(M_PERTURB, 0)


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_the_same_frames_give_the_same_bytes(fill_memory, tmp_path: Path, codec: str):
    """With AVX-512, x264 reads memory that nobody has written."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (24, 38, 56), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    frames = [np.roll(block, 3 * number, 1) // 2 + random.integers(0, 60, block.shape, dtype=np.uint8)
              for number, block in enumerate(blocks)]
    grey = np.full((152, 224), 128, np.uint8)
    source = open_video(write_video(tmp_path / "source.mp4", np.stack(frames[:2])[..., None].repeat(3, -1)))
    encoding = Encoding(codec, QUALITY[codec], source.planes("yuv420p"), 304, 448, source.tags)
    made = set()
    for byte in (1, 255, 128):
        fill_memory(byte)
        path = tmp_path / f"{byte}.nut"
        write_segment(path, ([frame, grey, grey] for frame in frames), encoding)
        made.add(path.read_bytes())
    assert len(made) == 1
