"""CONTRIBUTING.md says which files a new network, source, metric and site touch; here each is added in a copy."""

from __future__ import annotations

import csv
import filecmp
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from repository import ROOT, child_environment

pytestmark = pytest.mark.slow

NETWORK = '''"""A toy: one convolution over the five frames, and a pixel shuffle."""

import torch.nn.functional as F
from torch import Tensor, nn

from hpc_vsr.models.core import Core


class Toy(Core):
    """Network from five LR frames to the centre frame at twice the size, less two pixels a side."""

    def __init__(self, channels: int = 1):
        super().__init__()
        self.last = nn.Conv2d(5 * channels, 4 * channels, 3)

    def forward(self, lr: Tensor) -> Tensor:
        """Map (B, C, 5, h, w) to (B, C, 2h - 4, 2w - 4)."""
        return F.pixel_shuffle(self.last(lr.flatten(1, 2)), 2)
'''
SOURCE = '''"""Reads a NumPy array (T, H, W) as a field."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hpc_vsr.media.reading import Facts


@dataclasses.dataclass
class Stack:
    """An array of frames; see `hpc_vsr.media.source.Source`."""

    path: Path

    def __post_init__(self):
        self._frames = np.load(self.path, mmap_mode="r")
        self.files, self.channels, self.dtype = [self.path], ("value",), "float32"
        self.num_frames, self.height, self.width = self._frames.shape
        self.description, self.facts = {"variable": "value", "units": "1"}, Facts()

    def read(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, None]]:
        for frame in self._frames[start:stop]:
            yield frame[None].astype(np.float32), None
'''


class Copy:
    """A copy of the library in which a change is made, and its commands."""

    def __init__(self, folder: Path):
        self.folder = folder
        shutil.copytree(ROOT / "hpc_vsr", folder / "hpc_vsr", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "slurm", folder / "slurm")

    def add(self, path: str, text: str) -> None:
        assert not (self.folder / path).exists()
        (self.folder / path).write_text(text)

    def insert(self, path: str, before: str, text: str) -> None:
        """Insert a text before the only place where `before` stands."""
        content = (self.folder / path).read_text()
        assert content.count(before) == 1, (path, before)
        (self.folder / path).write_text(content.replace(before, text + before))

    def run(self, stage: str, *arguments) -> subprocess.CompletedProcess:
        done = subprocess.run([sys.executable, "-m", f"hpc_vsr.{stage}", *map(str, arguments)], cwd=self.folder,
                              env={**child_environment(), "PYTHONPATH": str(self.folder)}, capture_output=True,
                              text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    def changed(self, name: str) -> set[str]:
        """Return the files that the repository has not, or has otherwise, with NAME for the name of what is new."""
        paths = {str(path.relative_to(self.folder)) for folder in ("hpc_vsr", "slurm")
                 for path in (self.folder / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        return {path.replace(name, "NAME") for path in paths
                if not ((ROOT / path).exists() and filecmp.cmp(ROOT / path, self.folder / path, shallow=False))}


@pytest.fixture
def copy(tmp_path) -> Copy:
    return Copy(tmp_path / "copy")


def named_files(heading: str) -> set[str]:
    """Return the files of the library in the table below a heading of CONTRIBUTING.md."""
    section = re.search(rf"^### {re.escape(heading)}$(.*?)(?=^##|\Z)", (ROOT / "CONTRIBUTING.md").read_text(),
                        re.MULTILINE | re.DOTALL).group(1)
    return set(re.findall(r"^\| `((?:hpc_vsr|slurm)/[^`]*)`", section, re.MULTILINE))


def test_a_new_network(copy, dataset):
    copy.add("hpc_vsr/models/toy.py", NETWORK)
    copy.insert("hpc_vsr/models/settings.py", '"compact": WHOLE_SCALES}', '"toy": (2,), ')
    copy.insert("hpc_vsr/models/build.py", '        case "flow4x":',
                '        case "toy":\n            return Toy(channels)\n')
    copy.insert("hpc_vsr/models/build.py", "\n__all__", "from hpc_vsr.models.toy import Toy\n")
    assert copy.changed("toy") == named_files("A new network")
    copy.run("train", "--data", dataset, "--out", "runs/toy", "--model.name", "toy", "--model.skip", "wiener",
             "--train.steps", 2, "--train.batch-size", 4, "--train.patch-size", 12, "--train.precision", "fp32")
    copy.run("evaluate", "--run", "runs/toy", "--first-stage")
    copy.run("report", "runs/toy")
    rows = json.loads((copy.folder / "runs" / "toy" / "report" / "report.json").read_text())["rows"]
    assert {row["model"] for row in rows} == {"toy", "baseline"}


def test_a_new_source(copy, tmp_path):
    copy.add("hpc_vsr/media/stack_source.py", SOURCE)
    copy.insert("hpc_vsr/media/source.py", '    Kind("frames"',
                '    Kind("field", "stack_source.Stack", (), (".npy",)),\n')
    assert copy.changed("stack") == named_files("A new source")
    stack = np.random.default_rng(0).normal(size=(40, 24, 32)).cumsum(axis=1).astype(np.float32)
    np.save(tmp_path / "stack.npy", stack)
    copy.run("preprocess", "--field", tmp_path / "stack.npy", "--shards", 3, "--out", "data/stack")
    info = json.loads((copy.folder / "data" / "stack" / "dataset.json").read_text())
    assert info["channels"] == ["value"] and info["hr_size"] == [24, 32] and info["source"]["frames"] == 40
    start, stop = info["splits"]["train"]
    assert info["value_range"] == pytest.approx([stack[start:stop].min(), stack[start:stop].max()])


def test_a_new_metric(copy, trained):
    copy.insert("hpc_vsr/metrics/image.py", '    return {"mse": error,',
                '    mae = float(np.mean(np.abs(planes[0] - planes[1])[known]))\n')
    copy.insert("hpc_vsr/metrics/image.py", '"psnr": psnr(error, data_range),', '"mae": mae, ')
    for kind in ("list[Figure]", "Figure"):
        copy.insert("hpc_vsr/evaluation/record.py", f'    # only in the profile "field"\n    rmse: {kind} =',
                    f"    mae: {kind} = ABSENT\n")
    copy.insert("hpc_vsr/report/tables.py", '"psnr_pooled", "ssim",\n', '"mae", ')
    copy.insert("hpc_vsr/report/tables.py", '                ("PSNR (dB)", lambda row: _decibels(row.psnr)),\n'
                '                ("pooled', '                ("MAE", _number_of("mae")),\n')
    assert copy.changed("mae") == named_files("A new metric")
    run = copy.folder / "runs" / "tiny"
    shutil.copytree(trained, run)
    copy.run("evaluate", "--run", run)
    copy.run("report", run)
    with (run / "report" / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert all(0 < float(row["mae"]) <= float(row["mse"]) ** 0.5 for row in rows if row["profile"] == "paper")
    assert re.search(r"<th\b[^>]*>\s*(<[^>]*>)?MAE", (run / "report" / "index.html").read_text())


def test_a_new_site(copy):
    copy.add("slurm/sites/toy.toml", 'setup = ["module load toy"]\n[gpu]\npartition = "gpuA"\naccount = "{project}"\n')
    assert copy.changed("toy") == named_files("A new site")
    done = copy.run("site", "--site", "slurm/sites/toy.toml", "--project", "abc")
    assert "gpuA" in done.stdout and "abc" in done.stdout
