"""Every check of benchmarks/gpu.py on the GPU of this machine: `pytest -m gpu`."""

from __future__ import annotations

import argparse
from pathlib import Path

import gpu
import pytest
from gpu_kit.kit import SAMPLE

pytestmark = pytest.mark.gpu

ITEMS = {item.name: item for item in gpu.items_of("check", 330)}


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    out = tmp_path_factory.mktemp("gpu")
    started = gpu.Worker(argparse.Namespace(part="check", device="cuda", out=Path(out), seconds=330.0, clip=SAMPLE))
    yield started
    started.stop()


@pytest.mark.parametrize("name", ITEMS)
def test_the_check_holds(worker, name):
    records = list(worker.run(ITEMS[name], ITEMS[name].limit))
    assert records
    assert not [gpu.format_record(found) for found in records if found["ok"] is False]
