from __future__ import annotations

from pathlib import Path

import pytest
from videos import write_rich


@pytest.fixture(scope="module")
def rich(tmp_path_factory) -> Path:
    """12 frames of 64x48 at a variable rate, BT.709, turned, with a title, sound, a subtitle and a chapter."""
    path = tmp_path_factory.mktemp("rich") / "rich.mkv"
    write_rich(path, "yuv420p")
    return path
