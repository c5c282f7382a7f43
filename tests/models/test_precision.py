"""precision = "auto": what is chosen, said, recorded and kept."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from files import rewrite
from machine import portable
from stages import assert_refused, run_stage
from trainings import TINY, train_tiny
from videos import write_video

import hpc_vsr
from hpc_vsr import train
from hpc_vsr.models import bf16, blocks, precision
from hpc_vsr.models.bf16 import Timing, find_wrong_layers, measure_convolutions
from hpc_vsr.models.build import build_model
from hpc_vsr.models.precision import check_precision, choose_precision, device_name, warn_of_other_device
from hpc_vsr.models.settings import Choice, ModelSettings
from hpc_vsr.system.errors import InputError, exit_status
from hpc_vsr.upscale.__main__ import main as upscale_main

# typed out, for torch reads the limits as it is loaded
ENV = ("env", *(f"{name}={value}" for name, value in portable().items()))
CPU, GPU = torch.device("cpu"), torch.device("cuda")
FAST_BF16, SLOW_BF16 = Timing(fp32=0.004, bf16=0.002), Timing(fp32=0.004, bf16=0.2)


def build(name: str = "delta", skip: str = "wiener"):
    settings = ModelSettings(name=name, skip=skip, input="deconvolved" if skip == "wiener" else "plain")
    return build_model(settings, channels=1, scale=4 if name == "flow4x" else 2, sigma=3.0, noise=1e-3)


def on_a_machine(monkeypatch, timing: Timing, name: str) -> None:
    """As if this process ran on a processor of that name and that speed."""
    monkeypatch.setattr(precision, "measure_convolutions", lambda *arguments, **more: timing)
    monkeypatch.setattr(precision, "device_name", lambda device: name)
    monkeypatch.setattr(precision, "find_wrong_layers", lambda *arguments: [])


def on_a_gpu(monkeypatch, has_bf16: bool, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


@pytest.mark.parametrize("timing, chosen", [
    (FAST_BF16, "bf16"), (SLOW_BF16, "fp32"), (Timing(fp32=0.01, bf16=0.01), "fp32"),
    (Timing(fp32=0.01, bf16=0.0097), "fp32"), (Timing(fp32=0.01, bf16=0.009), "bf16")])
def test_a_cpu_takes_what_was_measured_to_be_faster(monkeypatch, timing, chosen):
    on_a_machine(monkeypatch, timing, "EPYC")
    choice = choose_precision("auto", build(), 1, CPU)
    assert (choice.precision, choice.device) == (chosen, "EPYC")
    assert f"{1e3 * timing.fp32:.3g} ms in fp32 and {1e3 * timing.bf16:.3g} ms in bf16" in str(choice)


@pytest.mark.parametrize("has_bf16, capability, chosen", [
    (True, (8, 0), "bf16"), (False, (7, 5), "fp16"), (False, (7, 0), "fp16"), (False, (6, 1), "fp32")])
def test_a_gpu_takes_bf16_where_it_is_native_and_else_fp16(monkeypatch, has_bf16, capability, chosen):
    on_a_gpu(monkeypatch, has_bf16, capability)
    choice = choose_precision("auto", build(), 1, GPU, patch_size=32)
    assert choice.precision == chosen and "Tesla V100" in choice.reason


@pytest.mark.parametrize("name", ["previous", "delta", "parallel5", "flow4x", "compact"])
@pytest.mark.parametrize("training", [False, True])
def test_the_measurement_leaves_everything_as_it_was(name, training):
    network = build(name, skip="none")
    state = {key: value.clone() for key, value in network.state_dict().items()}
    wanted = {key: value.requires_grad for key, value in network.named_parameters()}
    threads, rng = torch.get_num_threads(), torch.get_rng_state()
    timing = measure_convolutions(network, 1, training)
    assert timing.fp32 > 0 and timing.bf16 > 0
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), rng)
    assert wanted == {key: value.requires_grad for key, value in network.named_parameters()}
    assert all(value.grad is None for value in network.parameters())
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.compute
@pytest.mark.parametrize("name", ["previous", "delta", "parallel5", "flow4x", "compact"])
@pytest.mark.parametrize("patch_size", [0, 16, 33])
def test_bf16_is_right_in_every_layer_on_this_processor(name, patch_size):
    """oneDNN 3.12 with AMX computes some of torch's own wrongly, at some sizes only."""
    assert find_wrong_layers(build(name, skip="none"), 1, patch_size) == []


def test_bf16_that_is_fast_and_wrong_is_not_taken(monkeypatch):
    monkeypatch.setattr(precision, "measure_convolutions", lambda *arguments, **more: FAST_BF16)
    right = blocks.Conv3d.forward

    def wrong(self, x):
        return right(self, x) * (1.1 if torch.is_autocast_enabled("cpu") and self.in_channels == 32 else 1)
    monkeypatch.setattr(blocks.Conv3d, "forward", wrong)
    choice = choose_precision("auto", build(), 1, CPU)
    assert choice.precision == "fp32"
    assert "core.leave_3d.2, core.leave_3d.4 wrongly in bf16" in choice.reason


def test_fields_through_a_network_without_residual_path_are_computed_in_fp32(monkeypatch):
    on_a_machine(monkeypatch, FAST_BF16, "EPYC")
    choice = choose_precision("auto", build(skip="none"), 1, CPU, rounding_shows=True)
    assert choice.precision == "fp32" and "model.skip" in choice.reason
    assert choose_precision("auto", build(skip="none"), 1, CPU, patch_size=32, rounding_shows=True).precision == "bf16"


def test_what_a_device_does_not_have_is_refused(monkeypatch):
    on_a_gpu(monkeypatch, has_bf16=False, capability=(7, 0))
    with pytest.raises(InputError, match="Tesla V100 has no bf16; use auto, fp16 or fp32"):
        check_precision("bf16", GPU)
    with pytest.raises(InputError, match="fp16 is for GPUs"):
        check_precision("fp16", CPU)
    for allowed, device in (("fp16", GPU), ("auto", GPU), ("bf16", CPU), ("fp32", CPU), ("auto", CPU)):
        check_precision(allowed, device)


def test_fp16_on_a_cpu_is_refused_by_every_stage(dataset, trained, clip, tmp_path):
    words = ("fp16 is for GPUs", "use auto, bf16 or fp32")
    assert_refused(train_tiny(dataset, tmp_path / "r", "--train.precision", "fp16"), "train.precision", *words)
    assert_refused(run_stage("evaluate", "--run", trained, "--precision", "fp16"), *words)
    done = run_stage("upscale", "--run", trained, "--input", clip, "--output", tmp_path / "out.mp4", "--device", "cpu",
                     "--precision", "fp16")
    assert_refused(done, *words)
    with pytest.raises(InputError, match="fp16 is for GPUs"):
        hpc_vsr.load(trained, device="cpu", precision="fp16")
    assert not (tmp_path / "r" / "config.json").exists() and not (tmp_path / "out.mp4").exists()


def train_here(dataset: Path, run: Path, *more) -> int:
    """A training in this process, whose machine a test may change."""
    words = ["--data", dataset, "--out", run, *TINY, "--train.precision", "auto", *more]
    return exit_status(train.main, [str(word) for word in words])


def lengthen(run: Path, steps: int) -> None:
    """As if the finished training had been one of so many steps that was stopped."""
    config = json.loads((run / "config.json").read_text())
    config["train"]["steps"] = steps
    rewrite(run / "config.json", config)


def test_a_run_records_its_precision_and_keeps_it_on_another_machine(dataset, tmp_path, monkeypatch, capfd):
    run = tmp_path / "r"
    on_a_machine(monkeypatch, FAST_BF16, "Xeon")
    assert train_here(dataset, run, "--train.steps", 2) == 0
    assert "precision bf16: a convolution of the network takes 4 ms in fp32 and 2 ms in bf16" in capfd.readouterr().err
    config = json.loads((run / "config.json").read_text())
    assert config["train"]["precision"] == "bf16"
    assert (config["chosen"]["precision"], config["chosen"]["device"]) == ("bf16", "Xeon")

    lengthen(run, 6)
    on_a_machine(monkeypatch, SLOW_BF16, "EPYC")
    assert train_here(dataset, run) == 0
    told = capfd.readouterr().err
    assert "precision bf16: the run was begun in it" in told
    assert (f"warning: {run}: was begun in bf16 on Xeon and goes on in it on EPYC, where auto takes fp32 (a convolution"
            in told)
    assert "warning: " in (run / "log.txt").read_text()
    config = json.loads((run / "config.json").read_text())
    assert config["train"]["precision"] == "bf16" and config["chosen"]["device"] == "Xeon"

    assert train_here(dataset, run) == 0  # finished: nothing to choose
    told = capfd.readouterr().err
    assert "finished before" in told and "precision" not in told


def test_a_run_of_an_earlier_version_keeps_its_precision(dataset, trained, tmp_path, monkeypatch, capfd):
    run = tmp_path / "r"
    shutil.copytree(trained, run)
    config = json.loads((run / "config.json").read_text())
    del config["chosen"]
    config["train"].update(precision="fp32", steps=8)
    rewrite(run / "config.json", config)
    on_a_machine(monkeypatch, FAST_BF16, "Xeon")
    assert train_here(dataset, run, "--train.steps", 8) == 0, capfd.readouterr().err
    assert "was begun in fp32 on another machine" in capfd.readouterr().err
    assert json.loads((run / "config.json").read_text())["train"]["precision"] == "fp32"


def test_another_precision_than_a_run_was_begun_in_is_refused(dataset, tmp_path):
    run = tmp_path / "r"
    assert train_tiny(dataset, run, "--train.precision", "fp32", "--train.steps", 2).returncode == 0
    done = train_tiny(dataset, run, "--train.precision", "bf16", "--train.steps", 2)
    assert_refused(done, "train.precision is 'fp32' there, 'bf16' now")


def test_a_run_in_a_precision_that_is_not_here_says_where_to_go_on():
    with pytest.raises(InputError) as refused:
        warn_of_other_device(Choice("fp16", "", "Tesla V100"), Choice("fp32", "", "EPYC"), CPU, "runs/delta")
    assert str(refused.value) == ("runs/delta: was begun in fp16 on Tesla V100: fp16 is for GPUs; a CPU computes in it "
                                  "many times slower than in fp32; go on where it was begun, or begin anew under "
                                  "another name")
    assert warn_of_other_device(Choice("bf16", "", "EPYC"), Choice("bf16", "", "EPYC"), CPU, "runs/delta") == ""


def test_bf16_that_is_slow_here_is_warned_of(dataset, tmp_path, monkeypatch, capfd):
    on_a_machine(monkeypatch, SLOW_BF16, "EPYC")
    assert train_here(dataset, tmp_path / "r", "--train.steps", 1, "--train.precision", "bf16") == 0
    told = capfd.readouterr().err
    assert "precision bf16: as asked for" in told and "warning: auto would take fp32 instead of bf16 here" in told


def test_an_evaluation_records_what_auto_chose(trained, tmp_path):
    run = tmp_path / "r"
    shutil.copytree(trained, run)
    done = run_stage("evaluate", "--run", run, "--precision", "auto")
    assert "of the network take" in done.stderr
    found = json.loads((run / "metrics-test.json").read_text())
    assert found["settings"]["precision"] == "auto" and found["precision"] in ("fp32", "bf16")


def test_an_upscaling_resumes_in_the_precision_that_it_was_begun_in(trained, tmp_path, monkeypatch, capfd):
    source = write_video(tmp_path / "in.mkv", np.random.default_rng(0).integers(0, 255, (6, 24, 32, 3), np.uint8),
                         codec="ffv1")
    words = ["--run", str(trained), "--input", str(source), "--output", str(tmp_path / "out.mkv"), "--device", "cpu",
             "--segment", "2"]
    on_a_machine(monkeypatch, FAST_BF16, "Xeon")
    assert exit_status(upscale_main, [*words, "--part", "1/3"]) == 0
    on_a_machine(monkeypatch, SLOW_BF16, "EPYC")
    assert exit_status(upscale_main, words) == 0
    told = capfd.readouterr().err
    assert f"{tmp_path / 'out.mkv'}.parts: was begun in bf16 on Xeon and goes on in it on EPYC" in told
    assert "tiny in bf16 on cpu" in told.splitlines()[-2] + told.splitlines()[-1]
    assert exit_status(upscale_main, words) == 0
    assert "finished before" in capfd.readouterr().err


def test_the_processor_of_any_kind_has_a_name(monkeypatch):
    assert device_name(CPU)
    arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd40\n"
    monkeypatch.setattr(Path, "read_text", lambda *arguments, **more: arm)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert device_name(CPU) == "aarch64 0x41 0xd40"
    monkeypatch.setattr(Path, "read_text", lambda *arguments, **more: "")
    assert device_name(CPU) == "aarch64"


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the limits are of x86; elsewhere nothing is limited")
def test_on_a_processor_without_bf16_auto_takes_fp32(dataset, tmp_path):
    """With the limits of `make test PORTABLE=1`, and really measured."""
    run = tmp_path / "r"
    lives = ((1, "bf16", ["precision bf16: as asked for", "auto would take fp32 instead of bf16 here"]),
             (2, "auto", ["precision bf16: the run was begun in it", "where auto takes fp32"]))
    for steps, asked, words in lives:
        if run.exists():
            lengthen(run, steps)
        done = train_tiny(dataset, run, "--train.steps", steps, "--train.precision", asked, launcher=ENV)
        assert done.returncode == 0, done.stderr
        assert all(word in done.stderr for word in words), done.stderr
    done = train_tiny(dataset, tmp_path / "fresh", "--train.steps", 1, "--train.precision", "auto", launcher=ENV)
    assert "precision fp32: a convolution of the network takes" in done.stderr, done.stderr


@pytest.mark.parametrize(("name", "enlarged"), [("compact", True), ("delta", False)])
def test_small_convolutions_are_timed_on_frames_that_show_their_arithmetic(monkeypatch, name, enlarged):
    sides = []

    def record(module, batch, training, seconds=0.2):
        sides.append(batch.shape[-1])
        return 1.0, 1.0

    monkeypatch.setattr(bf16, "_time_layer", record)
    network = build_model(ModelSettings(name=name), 1, 2, sigma=3.0, noise=1e-3)
    bf16.measure_convolutions(network, 1)
    assert (min(sides[1:]) > 2 * bf16.SIDE) == enlarged  # the first is the main convolution by itself
