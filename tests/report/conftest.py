from __future__ import annotations

import pytest
from stages import run_stage


@pytest.fixture(scope="module")
def report(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("reports") / "r"
    done = run_stage("report", trained, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "| Wiener" in done.stdout and f"report: {out / 'index.html'}" in done.stdout
    return out
