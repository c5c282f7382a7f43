"""A report of several variables: tables, spectra and pictures of each, in its units."""

from __future__ import annotations

import base64
import csv
import json
import re
import subprocess

import cv2
import numpy as np
import pytest
from flows import train_on_flow, velocity_and_pressure, write_flow
from machine import find_browser
from stages import run_stage

from hpc_vsr.report.pictures import in_colours

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow")
    path = train_on_flow(folder, write_flow(folder / "flow.nc", *velocity_and_pressure()), "u,p")[1]
    assert run_stage("report", path).returncode == 0
    return path


def test_each_variable_has_a_table_in_its_units(run):
    text = (run / "report" / "report.md").read_text()
    rows = json.loads((run / "metrics-test.json").read_text())["rows"]
    for name, units in (("u", "m s-1"), ("p", "Pa")):
        table = text[text.index(f"**field, {name}**") :]
        table = table[: table.find("**field", 4)]
        assert f"RMSE, bias, quantiles and LR in {units}." in table
        row, = (row for row in rows if (row["method"], row.get("variable")) == ("wiener", name))
        line, = (line for line in table.splitlines() if line.startswith("| Wiener"))
        assert float(line.split("|")[2]) == pytest.approx(row["rmse"], rel=1e-3)
    assert "means over u, p, each on its own range" in text
    with (run / "report" / "metrics.csv").open() as stream:
        cells = [(row["method"], row["profile"], row["variable"], row["units"]) for row in csv.DictReader(stream)]
    assert cells[3:] == [(method, "field", name, units) for name, units in (("u", "m s-1"), ("p", "Pa"))
                         for method in ("bicubic", "wiener", "run_u,p")]


def test_the_page_has_spectra_and_pictures_of_each(run):
    page = (run / "report" / "index.html").read_text()
    kept = np.load(run / "pictures-test.npz")
    for name, units in (("u", "m s-1"), ("p", "Pa")):
        assert f"Power spectra of {name}</h2>" in page and f"power ({units})²" in page
        assert len(re.findall(f'alt="comparison of frame [0-9]+ of {name}"', page)) == len(kept["frame"])
    # the viewer has all frames of u and then those of p, each in the colours of its own range
    data = json.loads(re.search(r'id="viewer-data">(.*?)</script>', page, re.S)[1])
    shown = {method["name"]: method for method in data["methods"]}
    assert len(shown["HR"]["pictures"]) == len(shown["Wiener"]["psnr"]) == 2 * len(kept["frame"])
    for channel in (0, 1):
        picture = shown["HR"]["pictures"][channel * len(kept["frame"]) + 1]
        found = cv2.imdecode(np.frombuffer(base64.b64decode(picture.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
        hr = kept["hr"][1, channel]
        assert np.array_equal(found[..., ::-1], in_colours(hr, hr))


CHOOSE = """<script>
const before = document.getElementById("image-left").src;
const choice = document.getElementById("variable");
choice.value = "1"; choice.dispatchEvent(new Event("change"));
document.title = `seen ${choice.options[1].text} ${before !== document.getElementById("image-left").src}`;
</script></body>"""


@pytest.mark.browser
def test_a_reader_chooses_the_variable(run, tmp_path):
    page = tmp_path / "page.html"
    page.write_text((run / "report" / "index.html").read_text().replace("</body>", CHOOSE))
    done = subprocess.run([find_browser(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                           f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0", "--dump-dom",
                           page.as_uri()], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and "CONSOLE" not in done.stderr, done.stderr
    assert "<title>seen p true</title>" in done.stdout
