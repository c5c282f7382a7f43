"""The code for GPUs in training, measuring and planning, as far as it runs without one."""

from __future__ import annotations

import importlib.metadata
from types import SimpleNamespace

import compare
import numpy as np
import pytest
import torch
from gpu_kit.reference import stock
from pretended_gpus import pretend_gpus
from stages import assert_refused, run_stage
from torch import Tensor
from trainings import TINY, records

from hpc_vsr.data.clips import Clips
from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.data.samples import Split
from hpc_vsr.data.values import from_unit, to_unit
from hpc_vsr.doctor import arithmetic
from hpc_vsr.evaluation import measure as scores
from hpc_vsr.evaluation.methods import Method
from hpc_vsr.experiment.settings import Experiment, TrainSettings
from hpc_vsr.models.blocks import as_on_gpu
from hpc_vsr.models.build import build_model
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.runs.checkpoints import Checkpoints
from hpc_vsr.runs.state import save_checkpoint
from hpc_vsr.system import progress
from hpc_vsr.train import main as train
from hpc_vsr.training import optimisation
from hpc_vsr.training.plan import format_plan, memory_of_rank
from hpc_vsr.training.validation import prepare_reach
from hpc_vsr.upscale import memory
from hpc_vsr.upscale.upscaler import load


@pytest.mark.parametrize("name", ["previous", "delta", "parallel5", "flow4x"])
def test_the_layers_of_a_gpu_compute_what_torch_does(name):
    """In float64, where only the order of additions differs."""
    torch.manual_seed(0)
    network = build_model(ModelSettings(name=name, skip="wiener"), 1, 4 if name == "flow4x" else 2, 2.0, 1e-3).double()
    torch.nn.init.normal_(network.core.last.weight, std=0.1)
    lr = torch.rand(1, 1, 5, 20 + 2 * network.reach, 24 + 2 * network.reach, dtype=torch.float64)
    with torch.inference_mode(), as_on_gpu():
        ours, plain = network.core(network._core_input(lr)), stock(network).core(network._core_input(lr))
    assert (ours - plain).abs().max() < 1e-12 * plain.abs().max()


def test_a_checkpoint_has_its_tensors_on_the_cpu(tmp_path, monkeypatch):
    moved, saved = [], []
    monkeypatch.setattr(Tensor, "cpu", lambda self: moved.append(self) or self)
    monkeypatch.setattr(torch, "save", lambda state, stream: saved.append(state))
    state = {"weights": {"a": torch.ones(1)}, "optimiser": {"state": {0: {"exp_avg": torch.zeros(2)}}}, "step": 3,
             "list": [torch.ones(3)]}
    save_checkpoint(Checkpoints(tmp_path), state, 3, 2, None)
    assert {id(tensor) for tensor in moved} == {id(state["weights"]["a"]), id(state["list"][0]),
                                                id(state["optimiser"]["state"][0]["exp_avg"])}
    assert saved[0]["step"] == 3


def test_values_are_scaled_by_a_product_which_has_the_same_bits_on_every_device():
    grey = torch.arange(256, dtype=torch.uint8)
    scaled = to_unit(grey, 0.0, 255.0)
    assert torch.equal(scaled, grey.float() * torch.tensor(1 / 255))
    assert not torch.equal(scaled, grey.float() / 255)  # a CPU's quotient, which CUDA does not compute
    assert torch.equal(from_unit(scaled, 0.0, 255.0).round().byte(), grey)
    field = torch.tensor([250.0, 275.0, 300.0])
    assert to_unit(field, 250.0, 50.0).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("world_size", [1, 2])
def test_one_rank_trains_without_ddp_and_several_exchange_no_filters(monkeypatch, world_size):
    options = {}
    monkeypatch.setattr(optimisation, "DistributedDataParallel",
                        lambda module, **given: options.update(given) or "joined")
    run = SimpleNamespace(settings=TrainSettings(), ranks=SimpleNamespace(world_size=world_size), objective="alone",
                          joined="alone")
    optimisation.Optimisation.join_ranks(run)
    assert run.joined == ("alone" if world_size == 1 else "joined")
    name = optimisation.EXCHANGE_OF_BUFFERS
    assert options == ({} if world_size == 1 else {name: False, "gradient_as_bucket_view": True})


@pytest.mark.parametrize(("sizes", "periodic", "measured"), [
    ([(400, 500)], "", True), ([(30, 40), (30, 400)], "", True), ([(30, 40)], "x", True), ([(30, 40)], "", False)])
def test_how_far_a_network_sees_is_found_by_the_main_rank(sizes, periodic, measured):
    manifest = SimpleNamespace(lr_sizes=sizes, periodic=periodic, channels=["y"])
    network = SimpleNamespace(core_reach=None, find_wrap=lambda channels: 20)
    margin = prepare_reach(network, manifest, SimpleNamespace(on_main=lambda function: 17))
    assert network.core_reach == (17 if measured else None) and margin == (20 if periodic else 0)


def test_a_rate_counts_the_steps_alone(monkeypatch):
    """Ten samples in a second, then a validation of an hour."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    rate = progress.Rate()
    for _ in rate.timed(range(4)):
        now[0] += 1
        rate.add(10)
        now[0] += 3600
    assert rate.restart() == 10
    for _ in rate.timed(range(1)):
        now[0] += 2
        rate.add(10)
    assert rate.restart() == 5


@pytest.mark.slow
def test_deterministic_training_is_offered_and_may_change_in_a_resumed_run(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    arguments = [str(word) for word in ("--data", dataset, "--out", tmp_path / "run", *TINY)]
    train([*arguments, "--train.deterministic", "true"])
    assert torch.backends.cudnn.deterministic
    train(arguments)
    assert not torch.backends.cudnn.deterministic
    assert len(records(tmp_path / "run")) > 0


def test_the_first_frame_of_a_method_is_not_in_its_time(dataset, monkeypatch):
    """The first call makes a context and chooses kernels: here it takes 100 s, every other one 1 s."""
    now, calls = [0.0], []
    monkeypatch.setattr(scores.time, "perf_counter", lambda: now[0])

    def enlarge(window: Tensor) -> Tensor:
        now[0] += 1 if calls else 100
        calls.append(1)
        return window[:, 2].repeat_interleave(2, 1).repeat_interleave(2, 2).float()

    split = Split(read_manifest(dataset), "test")
    methods = [Method("slow", "baseline", 0, 0, enlarge)]
    rows, _ = scores.measure_split(Clips.of(split), lambda _: methods, 1, torch.device("cpu"))
    assert {row.seconds_per_frame for row in rows} == {1.0} and len(calls) == len(split) + 1


def test_an_evaluation_runs_on_the_device_that_is_asked_for(trained):
    refused = run_stage("evaluate", "--run", trained, "--device", "cuda", environment={"CUDA_VISIBLE_DEVICES": ""})
    assert_refused(refused, 'device: is "cuda", and no GPU is visible')


def test_a_library_call_leaves_the_precision_of_its_caller(trained, monkeypatch):
    network, seen, before = load(trained, precision="fp32"), [], torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    inner = network._network.upscale_seen
    monkeypatch.setattr(network._network, "upscale_seen", lambda *given: seen.append(
        torch.backends.cudnn.conv.fp32_precision) or inner(*given))
    try:
        network.upscale(np.zeros((1, 16, 16), np.uint8))
        assert seen == ["ieee"] and torch.backends.cudnn.conv.fp32_precision == "tf32"
    finally:
        torch.backends.cudnn.conv.fp32_precision = before


# Memory

def test_a_plan_for_gpus_counts_what_a_gpu_holds(dataset):
    """Depth taps folded into channels: 3,900 MB instead of 1,650 for Delta on 16 patches of 64x64 in fp32."""
    manifest = read_manifest(dataset)
    experiment = Experiment(data=dataset, out=dataset.parent / "run", train=TrainSettings(
        patch_size=12, batch_size=64, precision="fp32"))
    network = build_model(ModelSettings(), 1, 2, 3.0, 1e-3)
    on_cpu, on_gpu = (memory_of_rank(experiment, network, manifest, 1, on_gpu=choice) for choice in (False, True))
    process = memory_of_rank(experiment, network, manifest, 64)  # nearly without samples
    assert on_gpu - 700e6 > 1.2 * (on_cpu - process)
    assert "of its GPU a rank" in format_plan(experiment, 1, on_gpus=True)
    assert "of its GPU" not in format_plan(experiment, 1)


def test_a_plan_for_gpus_does_not_tell_the_precision_of_this_cpu(dataset):
    experiment = Experiment(data=dataset, out=dataset.parent / "run", train=TrainSettings(patch_size=12))
    assert "precision auto: bf16, or fp16 on GPUs without bf16" in format_plan(experiment, 1, on_gpus=True)


@pytest.mark.parametrize("gpus, processes, together", [(1, 1, 1), (4, 4, 1), (2, 4, 2), (1, 3, 3)])
def test_ranks_that_share_a_gpu_share_its_memory(trained, monkeypatch, capsys, gpus, processes, together):
    network = load(trained, device="cpu")
    pretend_gpus(monkeypatch, gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    network.device = torch.device("cuda", 0)
    monkeypatch.setattr(network, "memory", lambda height, width: 20 * 2**30)
    monkeypatch.setattr(memory, "free_memory", lambda: 0)  # of the machine: not what is asked for here
    said = memory.state_memory(network, 32, 32, processes)
    assert said.startswith("up to 21.5 GB of memory of a GPU")
    warned = capsys.readouterr().err
    assert (f"may take up to {together * 20 * 2**30 / 1e9:.1f} GB of memory of a GPU, and 32.2 GB are free" in warned
            ) == (together > 1)


# Benchmarks and doctor

def test_a_benchmark_does_without_pyav_and_git(monkeypatch, tmp_path):
    def version(library: str) -> str:
        if library == "av":
            raise importlib.metadata.PackageNotFoundError(library)
        return "1.0"

    monkeypatch.setattr(compare.importlib.metadata, "version", version)
    monkeypatch.setenv("PATH", str(tmp_path))
    machine = compare.describe_machine()
    assert machine["commit"] == "" and "av" not in machine["libraries"] and machine["libraries"]["torch"] == "1.0"


def test_doctor_tells_gpus_their_code_and_the_driver(monkeypatch, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho '| NVIDIA-SMI 550.54  Driver Version: 550.54.15    "
                                         "CUDA Version: 12.4     |'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("SLURM_GPUS_ON_NODE", raising=False)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27, 3))
    pretend_gpus(monkeypatch, 1, name="Tesla V100-SXM2-32GB", capability=(7, 0), bf16=False)
    found = {finding.check: finding for finding in arithmetic.check_gpus()}
    assert found["torch"].state == "ok" and "driver 550.54.15 for CUDA up to 12.4" in found["torch"].found
    assert found["code for 0"].state == "broken" and "compute capability 7.0" in found["code for 0"].found
    assert "whl/cu126" in found["code for 0"].advice and found["bf16"].state == "warning"
    pretend_gpus(monkeypatch, 0)
    found = {finding.check: finding for finding in arithmetic.check_gpus()}
    assert found["torch"].state == "warning" and "sees no GPU" in found["torch"].found
    assert found["torch"].advice == "'nvidia-smi' must show one and a driver for CUDA 13.0"
