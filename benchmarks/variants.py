"""Compares variants of `compact` on a data set: trains each with the same settings and prints its PSNR.

    python benchmarks/variants.py --data data/diamond --variants base 24x7 gate --seeds 0 1 2
    python benchmarks/variants.py --list

A variant changes one thing of `base` (32 maps, 4 blocks): the network, what it sees, or a setting of its training.
docs/results.md has what was measured. A line shows the parameters, the operations for a frame, the processor's seconds
of a training, and the PSNR of the validation and the test split, as mean and spread (largest less smallest) over the
seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from variant_networks import VARIANTS, Seeing, Variant  # noqa: E402
from variant_splits import teach  # noqa: E402

from hpc_vsr.data.clips import Clips, validation_pairs  # noqa: E402
from hpc_vsr.data.manifest import Manifest, read_manifest  # noqa: E402
from hpc_vsr.data.patches import Patches, load_batches  # noqa: E402
from hpc_vsr.data.samples import choose_memory  # noqa: E402
from hpc_vsr.evaluation.baselines import tune_noise  # noqa: E402
from hpc_vsr.experiment.settings import TrainSettings  # noqa: E402
from hpc_vsr.models.blocks import count_parameters, initialise  # noqa: E402
from hpc_vsr.models.enlarge import Enlarge  # noqa: E402
from hpc_vsr.models.flops import count_flops  # noqa: E402
from hpc_vsr.models.network import Network  # noqa: E402
from hpc_vsr.system.memory import keep_freed_memory  # noqa: E402
from hpc_vsr.system.ranks import join_ranks  # noqa: E402
from hpc_vsr.training.optimisation import Optimisation  # noqa: E402
from hpc_vsr.training.validation import validate  # noqa: E402
from hpc_vsr.upscale.upscaler import Upscaler, load  # noqa: E402


def build(variant: Variant, manifest: Manifest, noise: float) -> Network:
    """Build the initialised network behind a Wiener skip, as `hpc_vsr.models.build` does for compact."""
    channels, scale, sigma = len(manifest.channels), manifest.scale, manifest.degradation.blur_sigma
    core = variant.core(channels, scale).to(memory_format=torch.channels_last)
    core.num_frames = variant.frames
    initialise(core)
    core.keep_alive(0.5)
    nn.init.zeros_(core.last.weight)
    nn.init.zeros_(core.last.bias)
    wiener = Enlarge("wiener", scale, sigma, noise)
    network = Seeing(core, wiener, wiener, frames=variant.frames, aligns=variant.aligned)
    network.sees = variant.sees
    if variant.sees == "two noises":
        network.softer = Enlarge("wiener", scale, sigma, noise / 10)
    return network


def train(name: str, manifest: Manifest, settings: TrainSettings, noise: float, teacher: Upscaler | None = None
          ) -> dict[str, Any]:
    """Train a variant, towards HR or towards the mean of it and of what a teacher makes, and return its figures."""
    variant = VARIANTS[name]
    split = variant.split
    with join_ranks("cpu") as ranks:
        torch.set_num_threads(ranks.num_threads)
        torch.manual_seed(settings.seed)
        network = build(variant, manifest, noise)
        frames = split(manifest, "train", choose_memory(manifest, "auto", ranks.device, 1, variant.aligned))
        if teacher is not None:
            teach(frames, teacher)
        optimisation = Optimisation(network, settings, ranks, manifest.folder)
        patches = Patches(frames, settings.patch_size, network.reach, settings.augment, settings.seed)
        begin = time.process_time()
        for patch in load_batches(patches, 0, settings.steps * settings.batch_size, settings.batch_size, 0, 1, 0,
                                  ranks.device):
            optimisation.read(optimisation.take_step(patch))
        seconds = time.process_time() - begin
        found = {part: validate(optimisation.average.network.upscale, Clips.of(split(manifest, part)), ranks,
                                settings.precision, 0).psnr for part in ("val", "test")}
    return {"variant": name, "teacher": teacher.name if teacher else "", "data": manifest.folder.name,
            "seed": settings.seed,
            "parameters": count_parameters(network),
            "gflops": count_flops(network, len(manifest.channels), manifest.lr_size) / 1e9,
            "processor_seconds": round(seconds, 1), **found,
            "settings": {key: getattr(settings, key) for key in
                         ("steps", "batch_size", "patch_size", "lr", "clip_norm", "loss", "precision")}}


def settings_of(variant: Variant, arguments: argparse.Namespace, seed: int) -> TrainSettings:
    steps = arguments.steps * variant.times
    return TrainSettings(**{"steps": steps, "batch_size": arguments.batch_size // variant.times,
                            "patch_size": arguments.patch_size, "lr": arguments.lr, "clip_norm": arguments.clip_norm,
                            "warmup_steps": steps // 12, "ema_decay": 0.99 if steps < 1000 else 0.998,
                            "precision": arguments.precision, "seed": seed, **variant.train})


def mean_and_spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ({max(values) - min(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", default=[Path("data/diamond")], help="data sets")
    parser.add_argument("--variants", nargs="+", default=["base"], choices=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=600, help="(default: 600)")
    parser.add_argument("--batch-size", type=int, default=16, help="(default: 16)")
    parser.add_argument("--patch-size", type=int, default=40, help="LR pixels (default: 40)")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate (default: 2e-3)")
    parser.add_argument("--clip-norm", type=float, default=0.0, help="clip the gradient to this norm (default: no)")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"], help="(default: bf16)")
    parser.add_argument("--teacher", type=Path, metavar="RUN",
                        help="run whose network teaches: HR is replaced by the mean of it and of what that one makes")
    parser.add_argument("--list", action="store_true", help="print the names of the variants and end")
    parser.add_argument("--out", type=Path, help="append the figures of each training to this file, as JSON")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(VARIANTS))
        return
    keep_freed_memory()
    teacher = load(arguments.teacher, "cpu") if arguments.teacher else None
    for folder in arguments.data:
        manifest = read_manifest(folder)
        for name in arguments.variants:
            found = []
            pairs = validation_pairs(manifest, split=VARIANTS[name].split)
            noise = tune_noise(pairs, manifest.scale, manifest.degradation.blur_sigma)
            for seed in arguments.seeds:
                found.append(train(name, manifest, settings_of(VARIANTS[name], arguments, seed), noise,
                                   teacher))
                if arguments.out:
                    with arguments.out.open("a") as file:
                        file.write(json.dumps(found[-1]) + "\n")
            val, test = (mean_and_spread([one[part] for one in found]) for part in ("val", "test"))
            seconds = statistics.mean(one["processor_seconds"] for one in found)
            print(f"{folder.name:10} {name:22} {found[0]['parameters']:8,} {found[0]['gflops']:6.1f} GFLOP "
                  f"{seconds:5.0f} s  validation {val} dB  test {test} dB", flush=True)


if __name__ == "__main__":
    main()
