"""A field of several levels, with a gap in time, through `preprocess`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray
from stages import assert_refused, run_stage


@pytest.fixture
def levels(tmp_path):
    """40 steps with a gap before step 20; the values are the level plus the row over 100."""
    values = np.array([850.0, 500.0])[:, None, None] + np.arange(16)[:, None] / 100 * np.ones((16, 16))
    hours = np.r_[np.arange(20), np.arange(20) + 50.0]
    xarray.Dataset({"t": (("time", "level", "lat", "lon"), np.stack([values] * 40).astype(np.float32))},
                   {"time": ("time", hours, {"units": "hours since 2000-01-01"}), "level": [850.0, 500.0]}
                   ).to_netcdf(tmp_path / "levels.nc")
    return tmp_path / "levels.nc"


def test_a_level_must_be_chosen_and_is_recorded(levels, tmp_path):
    recipe = ("--field", levels, "--variable", "t", "--shards", 4, "--out", tmp_path / "d")
    assert_refused(run_stage("preprocess", *recipe), "levels.nc: t has several values of level (850, 500); choose one, "
                   "such as --select level=850")
    done = run_stage("preprocess", *recipe, "--select", "level=500")
    assert done.returncode == 0, done.stderr
    assert "time has 1 gap: 31 hours before frame 20 (2000-01-01T19:00 to 2000-01-03T02:00)" in done.stderr
    content = json.loads((tmp_path / "d" / "dataset.json").read_text())
    assert content["source"]["selection"] == {"level": 500.0} and content["source"]["breaks"] == [20]
    np.testing.assert_allclose(content["value_range"], [500, 500.15], rtol=1e-6)
    assert not any(shard["first_frame"] < 20 < shard["first_frame"] + shard["frames"] for shard in content["shards"])
