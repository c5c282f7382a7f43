"""The GPU that each way of starting gives a process, and the refusals, on pretended GPUs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch
from pretended_gpus import MIG, OF_JOBS, uuid
from repository import ROOT
from stages import torchrun

from hpc_vsr.cluster import jobs
from hpc_vsr.system import gpus
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.gpus import Placed, check_placements, choose_device, has_code_for
from hpc_vsr.system.ranks import backend_of, join_ranks

# One process, as `train`, `evaluate` and `upscale` choose


@pytest.mark.parametrize("count, visible, local_rank, chosen", [
    (0, None, 0, "cpu"), (1, None, 0, "cuda:0"), (4, None, 2, "cuda:2"), (4, "2", 0, "cuda:0"),
    (4, "3,1", 1, "cuda:1"), (4, uuid(3), 0, "cuda:0"), (4, MIG, 0, "cuda:0"), (4, "", 0, "cpu"), (4, "-1", 0, "cpu"),
    (4, "NoDevFiles", 0, "cpu"),
    (1, None, 3, "cuda:0"),  # each task of srun --gpus-per-task=1 sees its own GPU as number 0
])
def test_a_process_takes_the_gpu_of_its_local_rank_among_those_it_sees(machine, count, visible, local_rank, chosen):
    machine(count, {} if visible is None else {gpus.VARIABLE: visible})
    assert str(choose_device("auto", local_rank)) == chosen
    assert str(choose_device("cpu", local_rank)) == "cpu"


@pytest.mark.parametrize("count, visible, why", [
    (2, "", "CUDA_VISIBLE_DEVICES='' hides all GPUs; unset it"),
    (2, "-1", "CUDA_VISIBLE_DEVICES='-1' hides all GPUs"),
    (0, "1", "sees no GPU of CUDA_VISIBLE_DEVICES=1; 'nvidia-smi' must show one and a driver for CUDA 13.0"),
    (0, None, "sees no GPU; 'nvidia-smi' must show one"),
])
def test_a_gpu_that_is_asked_for_and_not_seen_is_refused_with_the_reason(machine, count, visible, why):
    machine(count, {} if visible is None else {gpus.VARIABLE: visible})
    with pytest.raises(InputError, match="and no GPU is visible: ") as refused:
        choose_device("cuda")
    assert why in str(refused.value)


def test_a_torch_without_cuda_is_named(machine, monkeypatch):
    machine(0)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(InputError, match="is built without CUDA; install a torch with CUDA"):
        choose_device("cuda")


def test_a_gpu_without_code_in_this_torch_is_refused_before_its_first_kernel(machine):
    machine(1, name="Tesla V100-SXM2-32GB", capability=(7, 0))
    with pytest.raises(InputError, match=r"Tesla V100.*capability 7\.0.*whl/cu126"):
        choose_device("auto")


@pytest.mark.parametrize("capability, built, runs", [
    ((9, 0), ["sm_90"], True), ((8, 6), ["sm_80"], True), ((8, 0), ["sm_86"], False), ((7, 0), ["sm_75"], False),
    ((10, 3), ["sm_90"], False), ((12, 1), ["sm_80", "compute_80"], True), ((9, 0), ["sm_90a"], True),
    ((10, 3), ["sm_100a"], False), ((10, 3), ["sm_100f"], True), ((8, 0), ["gfx90a"], False),
])
def test_what_code_a_gpu_runs(capability, built, runs):
    assert has_code_for(capability, built) is runs


def test_choosing_a_device_changes_nothing_of_the_callers(machine, monkeypatch):
    machine(2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: pytest.fail("the caller's GPU was changed"))
    before = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    choose_device("auto", 1)
    with gpus.full_float32():
        assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert before == (torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)


# Ranks that meet, under torchrun and srun

def on(host: str, number: int, name: str = "NVIDIA A100") -> Placed:
    return Placed(host, "cuda", name, uuid(number))


@pytest.mark.parametrize("ranks", [
    [on("a", 0)], [on("a", 0), on("a", 1)], [on("a", 0), on("b", 0)], [Placed("a", "cpu")] * 4,
    [on("a", 0, "NVIDIA A100 MIG 1g.5gb")],
])
def test_ranks_with_a_gpu_each_or_none_are_taken(ranks, monkeypatch):
    monkeypatch.delenv(gpus.SHARE, raising=False)
    check_placements(ranks)


@pytest.mark.parametrize("ranks, words", [
    ([on("a", 0), on("a", 0)], ["ranks 0 and 1 on a would share one GPU (NVIDIA A100)", "start 1 rank on a node",
                                "instead of 2"]),
    ([on("a", 0), on("a", 1), on("b", 0), on("b", 0)], ["ranks 2 and 3 on b", "start 1 rank on"]),
    ([on("a", 0), on("a", 1), on("a", 0), on("a", 1)], ["ranks 0 and 2 on a", "start 2 ranks on", "instead of 4"]),
    ([on("a", 0), Placed("b", "cpu")], ["rank 1 on b has no GPU and rank 0 on a has one"]),
    ([on("a", 0, "NVIDIA A100 MIG 1g.5gb"), on("a", 1, "NVIDIA A100 MIG 1g.5gb")], ["slice of a GPU", "one rank"]),
])
def test_ranks_that_cannot_be_joined_are_refused(ranks, words, monkeypatch):
    monkeypatch.delenv(gpus.SHARE, raising=False)
    with pytest.raises(InputError) as refused:
        check_placements(ranks)
    assert all(word in str(refused.value) for word in words), refused.value


def test_ranks_share_a_gpu_where_the_user_says_so(monkeypatch):
    monkeypatch.setenv(gpus.SHARE, "1")
    check_placements([on("a", 0), on("a", 0)])
    assert backend_of(torch.device("cuda", 0)) == "gloo"
    monkeypatch.setenv(gpus.SHARE, "yes")
    with pytest.raises(InputError, match="HPC_VSR_SHARE_GPU: must be 0 or 1, found 'yes'"):
        backend_of(torch.device("cuda", 0))


@pytest.mark.parametrize("given, holds", [(None, "1"), ("0", "0")])
def test_a_wait_of_nccl_ends_with_an_exception_unless_the_user_wants_otherwise(monkeypatch, given, holds):
    """Else a rank that has lost another waits behind a kernel until NCCL's watchdog aborts it."""
    monkeypatch.delenv(gpus.SHARE, raising=False)
    monkeypatch.setenv("TORCH_NCCL_BLOCKING_WAIT", given or "")
    if given is None:
        monkeypatch.delenv("TORCH_NCCL_BLOCKING_WAIT")
    assert backend_of(torch.device("cuda", 0)) == "cpu:gloo,cuda:nccl"
    assert os.environ["TORCH_NCCL_BLOCKING_WAIT"] == holds
    assert backend_of(torch.device("cpu")) == "gloo"


def test_one_rank_wants_no_nccl(machine, monkeypatch):
    machine(1)
    with join_ranks("auto") as ranks:
        assert str(ranks.device) == "cuda:0" and torch.distributed.get_backend() == "gloo"


PRETEND_AND_JOIN = """
import os, sys
import pytest, torch
sys.path[:0] = [{support!r}, {root!r}]
from pretended_gpus import OF_JOBS, pretend_gpus
patch = pytest.MonkeyPatch()
if os.environ.get("TASKS_ARE_BOUND"):  # srun --gpus-per-task=1
    patch.setenv("CUDA_VISIBLE_DEVICES", os.environ["LOCAL_RANK"])
pretend_gpus(patch, int(os.environ["GPUS"]))
from hpc_vsr.system import ranks as distributed
from hpc_vsr.system.errors import exit_status
patch.setattr(distributed, "backend_of", lambda device: "gloo")

def join(_argv):
    with distributed.join_ranks("auto") as ranks:
        sys.stdout.write(f"rank {{ranks.rank}} {{ranks.device}}\\n")
sys.exit(exit_status(join))
"""


@pytest.mark.slow
@pytest.mark.parametrize("count, visible, bound, devices", [
    (2, None, "", ["rank 0 cuda:0", "rank 1 cuda:1"]), (4, "2,3", "", ["rank 0 cuda:0", "rank 1 cuda:1"]),
    (2, None, "1", ["rank 0 cuda:0", "rank 1 cuda:0"]), (2, "", "", ["rank 0 cpu", "rank 1 cpu"]),
    (1, None, "", None), (4, uuid(3), "", None), (4, MIG, "", None),
])
def test_two_ranks_of_torchrun(tmp_path, count, visible, bound, devices):
    script = tmp_path / "join.py"
    script.write_text(PRETEND_AND_JOIN.format(support=str(ROOT / "tests" / "support"), root=str(ROOT)))
    environment = {name: value for name, value in os.environ.items() if name not in OF_JOBS}
    done = subprocess.run([*torchrun(2), sys.executable, script], capture_output=True, text=True, timeout=300,
                          check=False, env={**environment, "GPUS": str(count), "TASKS_ARE_BOUND": bound,
                                            **({} if visible is None else {gpus.VARIABLE: visible})})
    if devices is None:
        said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode and len(said) == 1 and socket.gethostname() in said[0], done.stderr
        assert ("slice of a GPU" if visible == MIG else "ranks 0 and 1") in said[0]
    else:
        assert sorted(done.stdout.split("\n"))[1:] == devices, done.stderr


# Inside an allocation

@pytest.mark.parametrize("count, environment, words", [
    (0, {}, ["the job has 2 GPUs on this node", "torch", "or set train.device to cpu"]),
    (2, {gpus.VARIABLE: ""}, ["the job has 2 GPUs on this node, and CUDA_VISIBLE_DEVICES='' hides all GPUs; unset it"]),
])
def test_gpus_of_a_job_that_would_stand_idle_are_refused(machine, count, environment, words):
    machine(count, {"SLURM_GPUS_ON_NODE": "2", **environment})
    with pytest.raises(InputError) as refused, join_ranks("auto"):
        pass
    assert all(word in str(refused.value) for word in words), refused.value
    with join_ranks("cpu") as ranks:
        assert ranks.device.type == "cpu"


@pytest.mark.parametrize("gpus_on_node, tasks, device, refused", [
    ("1", "1", "auto", None), ("4", "4", "auto", None), ("", "4", "auto", None), ("2", "4", "cpu", None),
    ("2", "4", "auto", "4 tasks and 2 GPUs on each node"), ("1", "2", "cuda", "2 tasks and 1 GPU on each node"),
])
def test_srun_with_fewer_gpus_than_tasks_is_refused(monkeypatch, gpus_on_node, tasks, device, refused):
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": tasks, "SLURM_STEP_NUM_TASKS": tasks, "SLURM_NNODES": "1",
                        "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NUM_NODES": "1",
                        "SLURM_JOB_NODELIST": "a", "SLURM_GPUS_ON_NODE": gpus_on_node}.items():
        monkeypatch.setenv(name, value)
    if refused is None:
        assert jobs.environment_of_step(device).num_tasks == int(tasks)
    else:
        with pytest.raises(InputError, match=refused):
            jobs.environment_of_step(device)
