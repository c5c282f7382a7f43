"""The GPUs that `launch --cluster local` gives its ranks, on pretended GPUs."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import pytest
import submitit
from pretended_gpus import MIG, uuid
from repository import ROOT
from stages import assert_refused, run_stage
from trainings import TINY

from hpc_vsr import launch
from hpc_vsr.cluster import jobs
from hpc_vsr.system import gpus
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.gpus import ids_for_launch


@pytest.mark.parametrize("count, visible, wanted, ids", [
    (0, None, 2, ""), (4, None, 0, ""), (1, None, 1, "0"), (4, None, 2, "0,1"), (4, "2", 1, "2"), (4, "3,1", 2, "3,1"),
    (4, "3,1", 1, "3"), (4, uuid(2), 1, uuid(2)), (4, MIG, 1, MIG), (4, "", 1, ""), (4, "2,9,1", 1, "2"),
])
def test_a_local_launch_keeps_to_the_gpus_that_it_was_given(machine, count, visible, wanted, ids):
    machine(count, {} if visible is None else {gpus.VARIABLE: visible})
    assert ids_for_launch(wanted) == ids


@pytest.mark.parametrize("count, visible, wanted, words", [
    (1, None, 2, ["is 2, and this machine has 1 GPU;", "--resources.gpus-per-node 1 --resources.ranks-per-node 1"]),
    (4, "2,3", 4, ["is 4, and this machine has 2 GPUs (CUDA_VISIBLE_DEVICES=2,3)"]),
    (4, "2,9,1", 3, ["this machine has 1 GPU (CUDA_VISIBLE_DEVICES=2,9,1)"]),
    (4, f"{MIG},{MIG[:-1]}2", 2, ["slices of GPUs (MIG), which NCCL cannot join",
                                  "--resources.gpus-per-node 1 --resources.ranks-per-node 1, or use whole GPUs"]),
])
def test_a_local_launch_that_wants_more_gpus_is_refused(machine, count, visible, wanted, words):
    machine(count, {} if visible is None else {gpus.VARIABLE: visible})
    with pytest.raises(InputError) as refused:
        ids_for_launch(wanted)
    assert all(word in str(refused.value) for word in words), refused.value


def test_the_ranks_of_a_local_launch_see_its_gpus(tmp_path):
    """Through submitit, which shows the first GPUs of the machine unless it is overruled."""
    executor = submitit.LocalExecutor(tmp_path)
    executor.update_parameters(tasks_per_node=2, timeout_min=5)
    see = functools.partial(os.getenv, gpus.VARIABLE)
    assert executor.submit(jobs.OnGpus(see, uuid(2))).results() == [uuid(2)] * 2
    assert executor.submit(see).results() == [""] * 2


@pytest.mark.slow
def test_the_demo_of_an_allocation_with_gpus_trains_on_the_cpu_and_says_so(dataset, tmp_path, machine, monkeypatch,
                                                                          capsys):
    """Its job file asks for no GPU, so submitit hides them, and the job has one: that is no mistake."""
    machine(1, {"SLURM_GPUS_ON_NODE": "1", "SLURM_JOB_ID": "7", "OMP_NUM_THREADS": "1"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    settings = dict(zip(TINY[::2], map(str, TINY[1::2]), strict=True))
    del settings["--train.device"]
    arguments = [word for pair in settings.items() for word in pair]
    launch.main(["--cluster", "local", "--data", str(dataset), "--out", "runs/tiny", *arguments])
    said = capsys.readouterr()
    assert "training on the CPU: resources.gpus_per_node is 0" in said.err and "on cpu" in said.err
    assert "report: runs/tiny/report/index.html" in said.out
    config = json.loads(Path("runs/tiny/config.json").read_text())
    assert config["train"]["device"] == "cpu"


@pytest.mark.slow
def test_cuda_without_gpus_to_run_on_is_refused(dataset, tmp_path):
    done = run_stage("launch", "--cluster", "local", "--data", dataset, "--out", tmp_path / "run", "--train.device",
                     "cuda")
    assert_refused(done, 'train.device: is "cuda", and resources.gpus_per_node is 0')
