"""The report page in a real headless Chromium."""

from __future__ import annotations

import subprocess

import cv2
import pytest
from conftest import find_browser
from test_report import report  # noqa: F401 - a fixture

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def browse(tmp_path, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run([find_browser(), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments],
                          capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.browser
def test_the_page_shows_its_table_and_logs_nothing(report, tmp_path):  # noqa: F811
    page = (report / "index.html").as_uri()
    done = browse(tmp_path, "--enable-logging=stderr", "--v=0", "--dump-dom", page)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    for words in ('<td class="text">Wiener</td>', '<td class="text">tiny</td>', "id=\"pictures\"", "<svg"):
        assert words in done.stdout


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 420])
def test_the_page_is_drawn(report, tmp_path, width):  # noqa: F811
    picture = tmp_path / "page.png"
    done = browse(tmp_path, f"--window-size={width},2600", f"--screenshot={picture}", (report / "index.html").as_uri())
    assert done.returncode == 0, done.stderr
    drawn = cv2.imread(str(picture))
    assert drawn.shape[0] >= 2000 and drawn[: drawn.shape[0] // 2].std() > 10
