"""The report page in a real headless Chromium."""

from __future__ import annotations

import subprocess

import cv2
import pytest
from machine import find_browser

pytestmark = pytest.mark.slow

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def browse(tmp_path, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run([find_browser(), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments],
                          capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.browser
def test_the_page_shows_its_table_and_logs_nothing(report, tmp_path):
    page = (report / "index.html").as_uri()
    done = browse(tmp_path, "--enable-logging=stderr", "--v=0", "--dump-dom", page)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    for words in ('<td class="text">Wiener</td>', '<td class="text">tiny</td>', "id=\"pictures\"", "<svg"):
        assert words in done.stdout


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 420])
def test_the_page_is_drawn(report, tmp_path, width):
    picture = tmp_path / "page.png"
    done = browse(tmp_path, f"--window-size={width},2600", f"--screenshot={picture}", (report / "index.html").as_uri())
    assert done.returncode == 0, done.stderr
    drawn = cv2.imread(str(picture))
    assert drawn.shape[0] >= 2000 and drawn[: drawn.shape[0] // 2].std() > 10


# What a reader does, done in the page itself; what comes of it is left in its title.
DEEDS = """<script>
const seen = [];
const part = (id) => document.getElementById(id);
const clip = () => part("image-right").style.clipPath;
const before = clip();
part("divide").value = 250; part("divide").dispatchEvent(new Event("input"));
seen.push(before !== clip() && clip().includes("25%"));
seen.push(document.querySelector("#stage .divider").style.left === "25%");
const box = part("stage").getBoundingClientRect();
part("stage").dispatchEvent(new WheelEvent("wheel", {deltaY: -400, clientX: box.left + 10, clientY: box.top + 10,
                                                     cancelable: true, bubbles: true}));
seen.push(part("image-left").style.transform === part("image-right").style.transform);
seen.push(part("image-left").style.transform.includes("scale(2.7"));
part("reset").click();
seen.push(part("image-left").style.transform.includes("scale(1)"));
const source = part("image-left").src;
part("left").value = "0"; part("left").dispatchEvent(new Event("change"));
seen.push(part("image-left").src !== source && document.querySelector(".name.left").textContent === "LR");
const shown = part("frame-number").textContent;
part("frame").value = part("frame").max; part("frame").dispatchEvent(new Event("input"));
seen.push(part("frame-number").textContent !== shown);
const table = document.querySelector("#table table");
const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.startsWith("PSNR"));
const values = () => [...table.tBodies[0].rows].map((row) => parseFloat(row.cells[column].textContent));
const head = table.tHead.rows[0].cells[column];
head.querySelector("button").click();
seen.push(head.getAttribute("aria-sort") === "descending" && values().every((v, i, all) => i === 0 || all[i - 1] >= v));
head.querySelector("button").click();
seen.push(head.getAttribute("aria-sort") === "ascending" && values().every((v, i, all) => i === 0 || all[i - 1] <= v));
const chart = document.querySelector("#frames svg");
const area = chart.getBoundingClientRect();
const middle = {clientX: area.left + area.width / 2, clientY: area.top + area.height / 2};
chart.dispatchEvent(new PointerEvent("pointermove", middle));
const told = part("tip").textContent;
seen.push(!part("tip").hidden && /frame of the source [0-9]+/.test(told) && told.includes("Wiener: "));
chart.dispatchEvent(new PointerEvent("pointerleave"));
seen.push(part("tip").hidden);
document.title = "seen " + seen.join(" ");
</script></body>"""


@pytest.mark.browser
def test_the_slider_moves_the_table_sorts_and_curves_tell_their_values(report, tmp_path):
    page = tmp_path / "page.html"
    page.write_text((report / "index.html").read_text().replace("</body>", DEEDS))
    done = browse(tmp_path, "--enable-logging=stderr", "--v=0", "--dump-dom", page.as_uri())
    assert done.returncode == 0 and "CONSOLE" not in done.stderr, done.stderr
    assert f"<title>seen {' '.join(['true'] * 11)}</title>" in done.stdout, done.stdout[: done.stdout.find("<style>")]
