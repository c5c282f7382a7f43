"""An encoder does not make this process a real-time one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from patterns import moving_pattern
from videos import write_video

from hpc_vsr.media.planes import find_format
from hpc_vsr.media.video_sink import ENCODERS, Encoding, write_segment
from hpc_vsr.media.video_source import open_video


@pytest.mark.parametrize("codec", ["av1", "h264", "hevc"])
def test_the_scheduling_stays(tmp_path, codec):
    """As root, which SVT-AV1 lets run before everything else."""
    assert codec in ENCODERS
    source = open_video(write_video(tmp_path / "in.mkv", moving_pattern(4, 64, 96), codec="ffv1"))
    planes = find_format("yuv420p", False)
    encoding = Encoding(codec, 30, planes, source.height, source.width, source.tags)
    seen = set()

    def frames():
        for picture in source.read_planes(0, 4, planes.name):
            yield picture
            seen.update(os.sched_getscheduler(int(path.name)) for path in Path("/proc/self/task").iterdir())
    write_segment(tmp_path / f"segment{encoding.suffix}", frames(), encoding)
    assert seen == {os.SCHED_OTHER} and os.sched_getscheduler(0) == os.SCHED_OTHER
