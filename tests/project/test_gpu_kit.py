"""The kit of benchmarks/gpu.py on a CPU: every line of it but CUDA, what is left when it is cut off, what it finds."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import gpu
import numpy as np
import pytest
import torch
from gpu_kit import correctness, reference
from gpu_kit.kit import Item, Kit, record
from processes import list_processes
from repository import ROOT
from waiting import wait_until

from hpc_vsr.models.blocks import Conv3d, as_on_gpu

KIT = ROOT / "benchmarks" / "gpu.py"
CPU = torch.device("cpu")


# A quiet machine needs half of 120; here other tests compute beside it, and nothing is to be left out.
SECONDS = 400


def command(part: str, out: Path, *more) -> list[str]:
    return [sys.executable, str(KIT), "--part", part, "--device", "cpu", "--seconds", str(SECONDS), "--out", str(out),
            *more]


def run_kit(part: str, out: Path, *more, environment: dict[str, str] | None = None) -> list[dict]:
    done = subprocess.run(command(part, out, *more), capture_output=True, text=True, timeout=SECONDS + 60, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})})
    records = gpu.read_records(out / f"{part}.jsonl")
    assert done.returncode == 0, done.stdout + done.stderr
    assert gpu.format_table(records) in done.stdout
    return records


@pytest.mark.slow
@pytest.mark.parametrize("part", ["check", "train"])
def test_a_whole_part_on_a_cpu(part, tmp_path):
    records = run_kit(part, tmp_path)
    for item in gpu.items_of(part, SECONDS):
        own = [found for found in records if found["item"] == item.name]
        assert len(own) > 1 and own[-1]["what"] == "time", item.name
    assert not [found for found in records if "error" in found or found["ok"] is False]
    left = {found["item"] for found in records if "left_out" in found}
    assert left == ({"CUDA graphs"} if part == "check" else set())
    assert "right, 0 wrong" in (tmp_path / f"{part}.md").read_text()


@pytest.mark.slow
def test_without_pyav_git_and_the_network(tmp_path):
    (tmp_path / "av.py").write_text("raise ImportError('no av')\n")
    records = run_kit("check", tmp_path / "out", "--only", "machine", "batches", "upscaling", "training and",
                      environment={"PYTHONPATH": str(tmp_path), "PATH": "/nowhere"})
    assert [found["item"] for found in records if "left_out" in found] == ["upscaling, killed"]
    assert any(found["what"] == "two workers = resident" and found["ok"] for found in records)


@pytest.mark.slow
def test_what_is_done_is_on_disk_when_it_is_killed(tmp_path):
    with subprocess.Popen(command("check", tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as kit:
        wait_until((tmp_path / "check.md").exists, "the first results")
        kit.kill()
    records = gpu.read_records(tmp_path / "check.jsonl")
    assert any(found["what"] == "versions" and found["card"] for found in records)
    assert "product of 256 x 256, fp32" in (tmp_path / "check.md").read_text()
    # a worker that lived on would hold the GPU
    wait_until(lambda: not any(str(tmp_path) in words for words, _ in list_processes().values()), "its worker to end")


class Planted(gpu.Worker):
    """A worker that crashes, hangs or answers, as the name of the check says."""

    CODE = """
import json, os, sys, time
for line in sys.stdin:
    name = json.loads(line)["item"]
    print(json.dumps({"what": "first", "ok": True, "pid": os.getpid()}), flush=True)
    if name == "crash": os.abort()
    if name == "hang": time.sleep(600)  # longer than it may take
    print(json.dumps({"end": True}), flush=True)
"""

    def _start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", self.CODE], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, start_new_session=True)


@pytest.mark.parametrize("name, told", [("crash", "ended with status -6"), ("hang", "was killed after 0 s"),
                                        ("right", None)])
def test_a_check_that_crashes_or_hangs_costs_itself_alone(monkeypatch, name, told):
    monkeypatch.setattr(gpu, "STARTING", 3.0)  # seconds
    worker = Planted(argparse.Namespace())
    seconds = 0.3 if name == "hang" else 30
    first = list(worker.run(Item(name, None, 1, 30), seconds))
    second = list(worker.run(Item("right", None, 1, 30), 30))
    worker.stop()
    assert first[0]["what"] == "first" and second[0]["ok"] and len(second) == 1
    if told is None:
        assert len(first) == 1 and first[0]["pid"] == second[0]["pid"]
    else:
        assert first[1]["ok"] is False and told in first[1]["error"] and first[0]["pid"] != second[0]["pid"]


def test_a_process_that_dies_between_two_checks_is_replaced():
    worker = Planted(argparse.Namespace())
    first = next(worker.run(Item("right", None, 1, 30), 30))
    worker.process.kill()
    worker.process.wait()
    second = list(worker.run(Item("right", None, 1, 30), 30))
    worker.stop()
    assert second[0]["ok"] and second[0]["pid"] != first["pid"]


def test_for_what_no_time_is_left_is_named(tmp_path, monkeypatch):
    arguments = argparse.Namespace(part="check", seconds=5.0, out=tmp_path, device="cuda", only=None)
    monkeypatch.setattr(gpu, "items_of", lambda part, seconds: [Item("quick", None, 1, 5), Item("long", None, 50, 90)])
    monkeypatch.setattr(gpu.Worker, "run", lambda self, item, seconds: iter([record("a", True, value_dB=1.5)]))
    records = gpu.run(arguments)
    assert [found["item"] for found in records] == ["quick", "quick", "long"]
    assert records[-1]["left_out"].endswith("s were left")
    table = gpu.format_table(records)
    assert "1 right, 0 wrong" in table and "Left out: long" in table and "value dB 1.5" in table


def test_a_check_that_the_end_of_the_whole_cuts_off_is_not_called_wrong(tmp_path, monkeypatch):
    arguments = argparse.Namespace(part="check", seconds=3.0, out=tmp_path, device="cpu", only=None)
    cut_off = {"what": "the check", "ok": False, "error": "was killed", "killed": True}
    monkeypatch.setattr(gpu.Worker, "run", lambda self, item, seconds: iter([cut_off]))
    for limit, ok in ((50, None), (1, False)):
        monkeypatch.setattr(gpu, "items_of", lambda part, seconds, limit=limit: [Item("long", None, 1, limit)])
        assert gpu.run(arguments)[0]["ok"] is ok


def test_a_file_that_was_cut_off_is_shown(tmp_path):
    path = tmp_path / "check.jsonl"
    path.write_text('{"part": "check", "item": "a", "what": "b", "ok": false, "card": "NVIDIA H100", "at": "now"}\n{"p')
    done = subprocess.run([sys.executable, KIT, "--show", path], capture_output=True, text=True, check=True)
    assert "NVIDIA H100, now: 0 right, 1 wrong" in done.stdout and "Wrong:\n- a: b" in done.stdout


def test_the_golden_answers_are_those_of_torch_in_float64():
    answer, kept = reference.compute("delta"), reference.recorded("delta")
    np.testing.assert_allclose(answer.out, kept.out, rtol=0, atol=1e-12)
    np.testing.assert_allclose(answer.gradients, kept.gradients, rtol=1e-9, atol=1e-15)
    assert reference.build("delta").core.last.weight.abs().max() > 0


@pytest.mark.compute
@pytest.mark.parametrize("name", reference.NAMES)
def test_the_layers_of_a_gpu_give_the_golden_answers(name, tmp_path):
    with as_on_gpu():
        found = [*correctness.check_outputs(Kit(CPU, tmp_path), name), *correctness.check_gradients(Kit(CPU, tmp_path),
                                                                                                     name)]
    assert all(entry["ok"] for entry in found), found
    assert all(entry["detail_grey_levels"] > 0.5 for entry in found if "detail_grey_levels" in entry)


@pytest.mark.parametrize("factor", [1.05, float("nan")])
def test_a_layer_that_is_wrong_is_found(monkeypatch, tmp_path, factor):
    right = Conv3d._folded
    monkeypatch.setattr(Conv3d, "_folded", lambda self, x: right(self, x) * factor)
    with as_on_gpu():
        found = [*correctness.check_outputs(Kit(CPU, tmp_path), "delta"),
                 *correctness.check_gradients(Kit(CPU, tmp_path), "delta")]
    assert [entry["ok"] for entry in found] == [False] * len(found)


@pytest.mark.slow
def test_the_tests_of_a_gpu_want_nothing_that_a_bare_machine_lacks(tmp_path):
    """Only pytest: no PyAV, xdist, hypothesis, yaml, MPI. Without a GPU they are skipped by name."""
    blocked = ("av", "xdist", "hypothesis", "yaml", "mpi4py", "submitit")
    for name in blocked:
        (tmp_path / f"{name}.py").write_text("raise ImportError\n")
    done = subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-p", "no:xdist",
                           "-p", "no:hypothesispytest", "-rs"], cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = "passed" if torch.cuda.is_available() else "no GPU: gpu tests are left out"
    assert wanted in done.stdout
