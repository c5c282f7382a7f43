"""Checks the commands on this device from end to end: train, stop, resume, kill, measure, export."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch

from gpu_kit.kit import Item, Kit, Wrong, first_difference, last_line, record
from hpc_vsr.runs.checkpoints import Checkpoints
from hpc_vsr.runs.state import load_checkpoint

POLL = 0.02


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(Checkpoints(run / "checkpoints").newest())["network"]


def check_training(kit: Kit) -> Iterator[dict]:
    """Train briefly: the loss must go down, and the checkpoint must load on a machine without a GPU."""
    run = kit.folder / "from-scratch"  # no residual path: with one, the loss hardly goes down in so few steps
    kit.command("train", *kit.arguments(run, steps=4 * kit.sizes.steps, precision=kit.half), "--model.skip", "none")
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in line]
    yield record(f"training in {kit.half}", losses[-1] < losses[0], first_loss=losses[0], last_loss=losses[-1])
    state = torch.load(Checkpoints(run / "checkpoints").newest(), weights_only=True)  # without map_location
    devices = {value.device.type for value in _tensors(state)}
    yield record("tensors of its checkpoint", devices == {"cpu"}, on=sorted(devices))


def check_resume(kit: Kit) -> Iterator[dict]:
    """Stop a training by SIGTERM, run the same command again, and compare with a training that was not stopped."""
    for deterministic in (True, False) if kit.on_gpu else (True,):  # a CPU always is
        runs = [kit.folder / f"{name}-{deterministic}" for name in ("whole", "stopped")]
        words = [kit.arguments(run, steps=4 * kit.sizes.steps, deterministic=deterministic) for run in runs]
        kit.command("train", *words[0])
        with _signalled(runs[1] / "metrics.jsonl", kit.sizes.steps):
            status = kit.status("train", *words[1])
        reached = load_checkpoint(Checkpoints(runs[1] / "checkpoints").newest())["step"]
        if status != 75:
            raise Wrong(f"the stopped training ended with {status} instead of 75 at step {reached}")
        kit.command("train", *words[1])
        off = first_difference(weights(runs[0]), weights(runs[1]))
        what = "deterministic" if deterministic else "as cuDNN likes"
        yield record(f"resumed at step {reached} of {4 * kit.sizes.steps}, {what}", off == 0 if deterministic else None,
                     largest_difference=off)


def check_bad_steps(kit: Kit) -> Iterator[dict]:
    """Spoil batches with NaN.

    A single bad batch must be left out. If all are bad, the training must end with one line and keep its last
    checkpoint.
    """
    from hpc_vsr.training import optimisation, trainer

    precision = "fp16" if kit.on_gpu else "bf16"
    patience = optimisation.MAX_BAD_STEPS + optimisation.SCALER_SEARCH * (precision == "fp16")
    right = trainer.load_batches

    def spoilt(spoil):
        def load(*arguments):
            for number, patch in enumerate(right(*arguments)):
                yield patch._replace(lr=patch.lr * math.nan) if spoil(number) else patch
        return load

    run = kit.folder / "one-bad"
    with mock.patch.object(trainer, "load_batches", spoilt(lambda number: number == 3)):
        kit.command("train", *kit.arguments(run, precision=precision))
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-2])
    finite = all(bool(value.isfinite().all()) for value in weights(run).values())
    # the fp16 scaler begins with too large a factor and finds the right one by skipping steps
    ok = finite and (last["skipped_steps"] == 1 or (precision == "fp16" and last["skipped_steps"] >= 1))
    yield record(f"one batch of NaN, {precision}", ok, skipped_steps=last["skipped_steps"], finite=finite)
    run = kit.folder / "all-bad"
    with mock.patch.object(trainer, "load_batches", spoilt(lambda number: number >= 4)):
        said = kit.command("train", *kit.arguments(run, steps=80, precision=precision, checkpoint_every=4), status=1)
    finite = all(bool(value.isfinite().all()) for value in weights(run).values())
    told = f"not finite in {patience} steps in a row" in said
    yield record(f"nothing but NaN, {precision}", finite and told, said=last_line(said))


def check_batches(kit: Kit) -> Iterator[dict]:
    """Compare batches from memory on the device, from the shards, and from loader processes with pinned memory."""
    from hpc_vsr.data.manifest import read_manifest
    from hpc_vsr.data.patches import Patches, load_batches
    from hpc_vsr.data.samples import Split

    manifest = read_manifest(kit.dataset)
    ways = {"resident": (kit.device, 0), "shards": (None, 0), "two workers": (None, 2)}
    found = {}
    for way, (where, workers) in ways.items():
        patches = Patches(Split(manifest, "train", where), 12, 8, True, 0)
        batches = load_batches(patches, 0, 32, 8, 0, 1, workers, kit.device)
        found[way] = [values.cpu() for batch in batches for values in batch]
    for way in list(ways)[1:]:
        same = all(torch.equal(one, other) for one, other in zip(found["resident"], found[way], strict=True))
        yield record(f"{way} = resident", same, batches=len(found[way]) // 2)


def check_evaluation(kit: Kit) -> Iterator[dict]:
    """Compare the figures of this device with those of the CPU."""
    run = kit.folder / "training"
    if not (run / "config.json").exists():
        kit.command("train", *kit.arguments(run))
    figures = {}
    for device, precision in (("cpu", "fp32"), (kit.device.type, "fp32"), (kit.device.type, kit.half)):
        kit.command("evaluate", "--run", run, "--device", device, "--precision", precision)
        rows = json.loads((run / "metrics-test.json").read_text())["rows"]
        figures[device, precision] = {(row["method"], row["profile"]): row["psnr"] for row in rows}
    for precision, most in (("fp32", 0.001), (kit.half, 0.02)):
        off = max(abs(psnr - figures["cpu", "fp32"][key]) for key, psnr in figures[kit.device.type, precision].items())
        yield record(f"evaluation in {precision}", off <= most, largest_difference_dB=round(off, 6), allowed_dB=most)


def check_upscaling(kit: Kit) -> Iterator[dict]:
    """Kill an upscaling of the bundled clip after a segment, run it again, and compare with one that ran through."""
    try:
        import av  # noqa: F401
    except ImportError:
        yield record("killed and resumed", None, left_out="PyAV is not here")
        return
    run = kit.folder / "training"
    if not (run / "config.json").exists():
        kit.command("train", *kit.arguments(run))
    clip, segment = ROOT_CLIP, 4 if kit.on_gpu else 2
    outputs = [kit.folder / f"{name}.mkv" for name in ("whole", "killed")]
    words = [["--run", run, "--input", clip, "--output", output, "--segment", segment, "--device", kit.device.type,
              "--stop", 20 if kit.on_gpu else 6, "--precision", kit.half if kit.on_gpu else "fp32"]
             for output in outputs]
    for output in outputs:
        output.unlink(missing_ok=True)
    kit.command("upscale", *words[0])
    with kit.start("upscale", *words[1]) as process:
        parts = outputs[1].with_name(f"{outputs[1].name}.parts")
        while process.poll() is None and not list(parts.glob("segment-*.sha256")):
            time.sleep(POLL)
        process.kill()
    there = len(list(parts.glob("segment-*.sha256")))
    kit.command("upscale", *words[1])
    sums = [hashlib.sha256(output.read_bytes()).hexdigest() for output in outputs]
    yield record("killed and resumed", sums[0] == sums[1] and there > 0, segments_before=there, sha256=sums[1][:16])


ROOT_CLIP = Path(__file__).resolve().parents[2] / "preprocess" / "sample" / "diamond_lr.mkv"


def check_two_ranks(kit: Kit) -> Iterator[dict]:
    """Compare two ranks that share this device through gloo (HPC_VSR_SHARE_GPU=1) with one rank."""
    alone, shared = kit.folder / "one-rank", kit.folder / "two-ranks"
    kit.command("train", *kit.arguments(alone))
    statuses, said = _train_on_two(kit, shared, {"HPC_VSR_SHARE_GPU": "1"})
    if any(statuses):
        raise Wrong(f"the ranks ended with {statuses}: {last_line(said)}")
    one, two = weights(alone), weights(shared)
    off = first_difference(one, two)
    close = all(torch.allclose(one[name], two[name], rtol=1e-3, atol=2e-4) for name in one)
    yield record("two ranks learn what one learns", close, largest_difference=float(f"{off:.2e}"))
    if kit.on_gpu:
        _, said = _train_on_two(kit, kit.folder / "refused", {})
        yield record("without the switch they are refused", "would share one GPU" in said, said=last_line(said))


def _train_on_two(kit: Kit, run: Path, environment: dict[str, str]) -> tuple[list[int], str]:
    """Train on two ranks; return their exit statuses and the standard error of the first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
              "GLOO_SOCKET_IFNAME": "lo", **environment}
    ranks = [kit.start("train", *kit.arguments(run), environment={
        **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]
    said = [rank.communicate()[1] for rank in ranks]
    return [rank.returncode for rank in ranks], said[0]


def check_doctor(kit: Kit) -> Iterator[dict]:
    """Run the doctor on this machine, and keep its table."""
    table, errors = kit.start("doctor", "--folders", f"[{kit.folder}]").communicate()
    (kit.folder.parent / "doctor.txt").write_text(table + errors)
    broken = [line for line in table.splitlines() if line.startswith("broken") and " SLURM " not in line]
    yield record("doctor", not broken and bool(table), broken=broken, table="doctor.txt")


def check_memory_failure(kit: Kit) -> Iterator[dict]:
    """Ask for more memory than the card has: one line, exit status 1. On a CPU the failure is simulated."""
    from hpc_vsr.training.objective import Objective

    run = kit.folder / "too-large"
    if kit.on_gpu:
        left = torch.cuda.mem_get_info(kit.device)[0] - (1 << 29)
        held = torch.empty(left, dtype=torch.uint8, device=kit.device)
        said = kit.command("train", *kit.arguments(run, batch_size=1024, resident="never"), status=1)
        del held
        torch.cuda.empty_cache()
    else:
        planted = mock.Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
        with mock.patch.object(Objective, "forward", planted):
            said = kit.command("train", *kit.arguments(run), status=1)
    line = last_line(said)
    yield record("no memory", line.startswith("failed: out of memory") and "Traceback" not in said, said=line)


def check_export(kit: Kit) -> Iterator[dict]:
    """Export the trained network; `export` itself compares its files with the network."""
    run = kit.folder / "training"
    if not (run / "config.json").exists():
        kit.command("train", *kit.arguments(run))
    formats = "both" if all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")) else "pt2"
    kit.command("export", "--run", run, "--out", kit.folder / "exported", "--formats", formats)
    files = {path.name: path.stat().st_size for path in sorted((kit.folder / "exported").iterdir())}
    yield record("export", len(files) > 1, formats=formats, bytes=files)


@contextlib.contextmanager
def _signalled(metrics: Path, lines: int) -> Iterator[None]:
    """Send SIGTERM to this process once a training in it has written `lines` lines."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL):
            if metrics.exists() and len(metrics.read_text().splitlines()) >= lines:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a signal after the training's end must not stop us
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGTERM, before)


def _tensors(state) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for value in state.values() if isinstance(state, dict) else state:
            yield from _tensors(value)


TRAINING = Item("training and its checkpoint", check_training, estimate=8, limit=60)
RESUME = Item("stop and resume", check_resume, estimate=12, limit=90)
BAD_STEPS = Item("batches of NaN", check_bad_steps, estimate=8, limit=60)
BATCHES = Item("batches", check_batches, estimate=10, limit=60)
EVALUATION = Item("evaluation", check_evaluation, estimate=10, limit=60)
UPSCALING = Item("upscaling, killed", check_upscaling, estimate=15, limit=90)
TWO_RANKS = Item("two ranks on one GPU", check_two_ranks, estimate=22, limit=90)
DOCTOR = Item("doctor", check_doctor, estimate=15, limit=60)
MEMORY_FAILURE = Item("no memory", check_memory_failure, estimate=4, limit=40)
EXPORT = Item("export", check_export, estimate=12, limit=60)
