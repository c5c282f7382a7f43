"""Runs real trainings in the time that is left: each network trains on the clip for a share of it and is measured.

Every training has a cosine schedule that ends within its share: its number of steps follows from a rate that is
measured first. If it takes longer, it gets the signal that SLURM would send, and what it has is measured all the same.
"""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from gpu_kit.kit import Item, Kit, Wrong, last_line, record

NETWORKS = ("delta", "parallel5")
# Shares of the time of the whole part, `--seconds`.
SHARE_OF_TRAINING, SHARE_OF_CURVES = 0.26, 0.03
STARTING = 12.0  # seconds of a share, for a process that loads torch and tunes the Wiener filter
ON_CPU = 15.0  # seconds, at most: a CPU is there to try the kit
KEPT = 25.0  # seconds of what is left for a training, for the evaluation after it
SAFETY = 0.85  # of the rest is planned for the steps; validation and checkpoint take what is left
CURVES = ("bf16", "fp16", "fp32")


def settings_of(kit: Kit, name: str) -> list:
    """Return the settings that train best in the time: the residual path and the input of jobs/delta.toml."""
    card = kit.on_gpu
    return ["--model.name", name, "--model.skip", "wiener", "--model.input", "deconvolved",
            "--train.batch_size", 16 if card else 2, "--train.patch_size", 64 if card else 16, "--train.lr", 5e-4,
            "--train.final_lr", 0.01, "--train.ema_decay", 0.995, "--train.device", kit.device.type,
            "--train.precision", kit.half, "--train.validate_samples", 16 if card else 2]


def data_of(kit: Kit) -> Path:
    """Return the data set that `check_preprocess` makes of the clip."""
    out = kit.folder / "clip"
    if not (out / "dataset.json").exists():
        raise Wrong("there is no data set, because the clip was not preprocessed")
    return out


def check_preprocess(kit: Kit) -> Iterator[dict]:
    """Make a data set of the clip; a CPU gets a small one of the moving pattern, to save time."""
    started, out = time.monotonic(), kit.folder / "clip"
    if kit.on_gpu:
        import av  # noqa: F401  so that a missing PyAV shows here

        kit.command("preprocess", "--video", kit.clip, "--shards", 8, "--out", out)
    else:
        kit.command("preprocess", "--frames", kit.dataset.parent / "frames", "--shards", 4, "--out", out)
    manifest = json.loads((out / "dataset.json").read_text())
    yield record("clip" if kit.on_gpu else "pattern", True, hr_size=manifest["hr_size"], splits=manifest["splits"],
                 s=round(time.monotonic() - started, 2))


def check_training(kit: Kit, name: str, share: float) -> Iterator[dict]:
    """Train a network for a share of the time, and measure it on the test split."""
    share = share if kit.on_gpu else min(share, ON_CPU)
    begun, data, run = time.monotonic(), data_of(kit), kit.folder / name
    common = [*settings_of(kit, name), "--data", data]
    probe = kit.folder / f"probe-{name}"
    steps = 40 if kit.on_gpu else 8
    kit.command("train", *common, "--out", probe, "--train.steps", steps, "--train.log_every", steps // 4,
                "--train.validate_every", 0)
    rates = [line["samples_per_second"] for line in _lines(probe) if "samples_per_second" in line]
    rate = rates[-1] / (16 if kit.on_gpu else 2)
    share = min(share, kit.seconds - (time.monotonic() - begun) - KEPT)
    steps = max(20, int(SAFETY * (share - STARTING) * rate))
    warmup = min(100, steps // 10)
    yield record(f"{name}: rate", None, steps_per_s=round(rate, 2), planned_steps=steps, planned_s=round(share, 1))
    quarter = max(1, steps // 4)
    ended, seconds = _run_until(kit, share, "train", *common, "--out", run, "--train.steps", steps,
                                "--train.warmup_steps", warmup, "--train.validate_every", quarter,
                                "--train.checkpoint_every", quarter, "--train.log_every", max(1, steps // 40))
    lines = _lines(run)
    validated = [(line["step"], round(line["validation"]["psnr"], 3)) for line in lines if "validation" in line]
    yield record(f"{name}: training", bool(lines), ended=ended, s=round(seconds, 1), steps=lines[-1]["step"],
                 validation_dB=validated, memory_GB=round(max(line.get("memory_bytes", 0) for line in lines) / 1e9, 2))
    kit.command("evaluate", "--run", run, "--device", kit.device.type)
    for row in json.loads((run / "metrics-test.json").read_text())["rows"]:
        if row["profile"] == "paper":
            yield record(f"{name}: {row['method']} on the test split", None, psnr_dB=round(row["psnr"], 3),
                         ssim=round(row["ssim"], 4), ms_per_frame=round(1e3 * row["seconds_per_frame"], 2),
                         frames=row["frames"])


def check_frames(kit: Kit) -> Iterator[dict]:
    """Run the whole upscaling command on videos of three sizes: decode, enlarge, encode."""
    try:
        from clips import make_clip
    except ImportError:
        yield record("upscaling", None, left_out="PyAV is not here")
        return
    run = kit.folder / "delta"
    if not (run / "config.json").exists():
        raise Wrong("there is no trained Delta")
    sizes = {"450x300": ((224, 150), 60), "1080p": ((960, 540), 24), "4K": ((1920, 1080), 8)}
    if not kit.on_gpu:
        sizes = {"64x48": ((32, 24), 4)}
    for name, (size, count) in sizes.items():
        clip, output = make_clip(kit.folder, size, count), kit.folder / f"{name}.mp4"
        output.unlink(missing_ok=True)
        started = time.monotonic()
        kit.command("upscale", "--run", run, "--input", clip, "--output", output, "--device", kit.device.type)
        seconds = time.monotonic() - started
        yield record(f"upscaling to {name}", output.exists(), frames=count, s=round(seconds, 2),
                     frames_per_s=round(count / seconds, 2))


def check_curves(kit: Kit, share: float) -> Iterator[dict]:
    """Compare the loss of Delta in every precision, from the same start on the same samples."""
    data, losses = data_of(kit), {}
    probe = [line["samples_per_second"] for line in _lines(kit.folder / "probe-delta") if "samples_per_second" in line]
    rate = (probe[-1] if probe else 100) / (16 if kit.on_gpu else 2)
    share = share if kit.on_gpu else min(share, ON_CPU / 10)
    steps = max(8, min(400, int(SAFETY * share * rate / 2)))
    for precision in (precision for precision in CURVES if precision in kit.precisions):
        run = kit.folder / f"curve-{precision}"
        kit.command("train", *settings_of(kit, "delta"), "--data", data, "--out", run, "--train.steps", steps,
                    "--train.warmup_steps", steps // 10, "--train.precision", precision, "--train.validate_every", 0,
                    "--train.log_every", max(1, steps // 10))
        losses[precision] = [round(line["loss"], 6) for line in _lines(run) if "loss" in line]
        final = next(line["validation"]["psnr"] for line in reversed(_lines(run)) if "validation" in line)
        off = abs(losses[precision][-1] / losses[CURVES[0]][-1] - 1)
        yield record(f"loss in {precision}", off <= 0.1, steps=steps, loss=losses[precision],
                     validation_dB=round(final, 3), from_bf16=round(off, 4))


def _lines(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _run_until(kit: Kit, seconds: float, stage: str, *words) -> tuple[str, float]:
    """Run a stage in its own process, with SIGTERM after `seconds`; return how it ended, and when."""
    started = time.monotonic()
    with kit.start(stage, *words) as process:
        ended = "at its last step"
        try:
            said = process.communicate(timeout=seconds)[1]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            ended, said = "by SIGTERM", process.communicate()[1]
    if process.returncode not in (0, 75):
        raise Wrong(f"{stage} ended with {process.returncode}: {last_line(said)}")
    return ended, time.monotonic() - started


def items(seconds: float) -> list[Item]:
    """Return the checks of a part of `seconds`, the most important first."""
    share, curve = SHARE_OF_TRAINING * seconds, SHARE_OF_CURVES * seconds
    trainings = [Item(f"training: {name}", functools.partial(check_training, name=name, share=share),
                      estimate=0.5 * share, limit=1.3 * share + 60) for name in NETWORKS]
    return [Item("preprocess", check_preprocess, estimate=8, limit=60), *trainings,
            Item("upscaling", check_frames, estimate=20, limit=90),
            Item("precisions", functools.partial(check_curves, share=curve), estimate=6 * curve, limit=6 * curve + 60)]
