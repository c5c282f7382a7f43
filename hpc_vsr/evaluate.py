"""Measure a trained network and the two baselines on a split of its data set, frame by frame.

Writes metrics-SPLIT.json (every figure of every frame, in every profile) and pictures-SPLIT.npz (a few frames as
pictures) into the run folder; `hpc_vsr.report` shows them.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hpc_vsr.baselines import tune_noise
from hpc_vsr.config import Parser, from_dict
from hpc_vsr.dataset import Split, validation_pairs
from hpc_vsr.distributed import choose_device
from hpc_vsr.errors import InputError, exit_status
from hpc_vsr.files import write_json, write_whole
from hpc_vsr.manifest import Manifest, read_manifest
from hpc_vsr.memory import keep_freed_memory
from hpc_vsr.metrics import list_profiles, luma, measure, psnr, temporal_error
from hpc_vsr.models import Enlarge, count_parameters
from hpc_vsr.progress import Progress
from hpc_vsr.runs import RunFolder, Trained, autocast, load_trained
from hpc_vsr.splits import REACH


@dataclass(frozen=True)
class EvaluateSettings:
    """How the trained network is measured.

    Attributes
    ----------
    split : str
        test, val or train.
    precision : str
        In which the network computes: fp32, bf16 or fp16.
    pictures : int
        How many frames are kept as pictures for the report.
    """

    split: Literal["test", "val", "train"] = "test"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    pictures: int = 3

    def __post_init__(self):
        if not 1 <= self.pictures <= 20:
            raise InputError(f"evaluate.pictures: must be 1 to 20, found {self.pictures}")


@dataclass(frozen=True)
class Method:
    """A way to enlarge the centre frame of a (C, 5, h, w) window of stored values to (C, H, W), float32."""

    name: str
    model: str
    num_parameters: int
    enlarge: Callable[[Tensor], Tensor]


def evaluate(run: RunFolder, manifest: Manifest, settings: EvaluateSettings) -> dict:
    """Measure bicubic, Wiener and the network of `run`, and write the result into its folder.

    Raises
    ------
    InputError
        If the run has no valid checkpoint, or its network does not fit the data set.
    """
    keep_freed_memory()
    run.check_name()
    trained = load_trained(run)
    _check_fit(trained, manifest)
    device = choose_device("auto")
    noise = tune_noise(validation_pairs(manifest), manifest.scale, manifest.degradation.blur_sigma)
    methods = [*_baselines(manifest, noise, device), _network(run, trained, settings, device)]
    split = Split(manifest, settings.split)
    rows, pictures = _measure_split(split, methods, settings.pictures)
    result = {
        "run": run.name, "split": settings.split, "dataset": describe(manifest), "step": trained.step,
        "precision": settings.precision, "device": device.type, "wiener_noise": noise,
        "trained_on": trained.terms.fingerprint, "rows": rows,
    }
    with write_whole(run.pictures(settings.split)) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **pictures)
    write_json(run.evaluation(settings.split), result)
    return result


def describe(manifest: Manifest) -> dict:
    """What a report says of a data set."""
    content = manifest.content
    return {"name": manifest.name, "fingerprint": manifest.fingerprint,
            **{key: content[key] for key in ("source", "channels", "dtype", "units", "degradation", "lr_size",
                                             "hr_size", "splits", "value_range", "normalisation")}}


def _check_fit(trained: Trained, manifest: Manifest) -> None:
    terms = trained.terms
    if (terms.channels, terms.scale) != (len(manifest.channels), manifest.scale):
        raise InputError(f"{trained.where}: was trained for {terms.channels} channels at scale {terms.scale}; "
                         f"{manifest.folder} has {len(manifest.channels)} at scale {manifest.scale}")


def _baselines(manifest: Manifest, noise: float, device: torch.device) -> list[Method]:
    sigma = manifest.degradation.blur_sigma
    filters = {"bicubic": Enlarge("bicubic", manifest.scale),
               "wiener": Enlarge("wiener", manifest.scale, sigma, noise)}

    def enlarger(enlarge: Enlarge) -> Callable[[Tensor], Tensor]:
        return lambda window: enlarge(window[None, :, REACH].float())[0]

    return [Method(name, "baseline", 0, enlarger(enlarge.to(device))) for name, enlarge in filters.items()]


def _network(run: RunFolder, trained: Trained, settings: EvaluateSettings, device: torch.device) -> Method:
    network, terms = trained.network.to(device), trained.terms

    def enlarge(window: Tensor) -> Tensor:
        with autocast(device, settings.precision):
            return network.upscale((window[None].float() - terms.offset) / terms.extent)[0].float() \
                * terms.extent + terms.offset

    return Method(run.name, trained.settings.name, count_parameters(network), enlarge)


def _measure_split(split: Split, methods: Sequence[Method], num_pictures: int) -> tuple[list[dict], dict]:
    """Rows of the report with the figures of every frame, and the frames kept as pictures."""
    manifest = split.manifest
    profiles = list_profiles(manifest.is_8bit)
    figures = {(method.name, profile): [] for method in methods for profile in profiles}
    temporal = {method.name: [] for method in methods}
    seconds = dict.fromkeys((method.name for method in methods), 0.0)
    kept = _spread(split.centres, num_pictures)
    pictures: dict[str, list[np.ndarray]] = {name: [] for name in ("lr", "hr", *(method.name for method in methods))}
    device = choose_device("auto")
    before: dict[str, np.ndarray] = {}
    with Progress(len(split), f"evaluating {split.name}", "frame") as progress, torch.inference_mode():
        for centre in split.centres:
            window = split.lr_frames(centre - REACH, centre + REACH + 1).transpose(0, 1).to(device)
            hr = split.hr_frame(centre).float().numpy()
            now = {"hr": luma("paper", hr).astype(np.uint8)} if manifest.is_8bit else {}
            for method in methods:
                started = time.perf_counter()
                sr = method.enlarge(window).cpu().numpy()
                seconds[method.name] += time.perf_counter() - started
                for profile in profiles:
                    pair = [sr, hr] if manifest.is_8bit else [_unit(values, manifest) for values in (sr, hr)]
                    figures[method.name, profile].append(measure(profile, *pair, manifest.scale, manifest.is_8bit))
                if manifest.is_8bit:
                    now[method.name] = luma("paper", sr).astype(np.uint8)
                    if before:
                        pairs = [(before[name], now[name]) for name in (method.name, "hr")]
                        temporal[method.name].append(temporal_error(*pairs))
                if centre in kept:
                    pictures[method.name].append(sr)
            if centre in kept:
                pictures["lr"].append(window[:, REACH].float().cpu().numpy())
                pictures["hr"].append(hr)
            before = now
            progress.advance()
    rows = [_row(method, split, profile, figures[method.name, profile], temporal[method.name],
                 seconds[method.name] / len(split)) for profile in profiles for method in methods]
    stacks = {name: np.stack(frames).astype(np.float32) for name, frames in pictures.items()}
    return rows, {"frame": np.array(kept), "methods": np.array([method.name for method in methods]), **stacks}


def _row(method: Method, split: Split, profile: str, frames: list[dict], temporal: list[dict], seconds: float) -> dict:
    columns = {key: [frame[key] for frame in frames] for key in frames[0]}
    mse = float(np.mean(columns["mse"]))
    finite = [value for value in columns["psnr"] if math.isfinite(value)]  # equal frames, such as black ones, have none
    row = {
        "method": method.name, "model": method.model, "params": method.num_parameters, "split": split.name,
        "profile": profile, "frames": len(frames), "exact_frames": len(frames) - len(finite),
        "mse": mse, "psnr": float(np.mean(finite)) if finite else math.inf,
        "psnr_pooled": psnr(mse, 255.0 if split.manifest.is_8bit else 1.0), "ssim": float(np.mean(columns["ssim"])),
    }
    if temporal:
        row.update({key: float(np.mean([pair[key] for pair in temporal])) for key in temporal[0]})
    row["seconds_per_frame"] = seconds
    row["per_frame"] = {"frame": list(split.centres), **columns}
    return _without_infinity(row)


def _without_infinity(value):
    """Infinite PSNR (equal frames) as null: JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _without_infinity(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_infinity(item) for item in value]
    return None if isinstance(value, float) and math.isinf(value) else value


def _unit(values: np.ndarray, manifest: Manifest) -> np.ndarray:
    return (values - manifest.offset) / manifest.extent


def _spread(centres: range, count: int) -> list[int]:
    count = min(count, len(centres))
    return [centres[(2 * index + 1) * len(centres) // (2 * count)] for index in range(count)]


def format_rows(rows: Sequence[dict]) -> str:
    """The rows as an aligned table of text."""
    head = f"{'method':<20} {'profile':<8} {'frames':>6} {'MSE':>10} {'PSNR/dB':>8} {'pooled':>8} {'SSIM':>7}"
    lines = [head, "-" * len(head)]
    for row in rows:
        psnr_text, pooled = ("∞" if row[key] is None else f"{row[key]:.2f}" for key in ("psnr", "psnr_pooled"))
        lines.append(f"{row['method']:<20} {row['profile']:<8} {row['frames']:>6} {row['mse']:>#10.4g} "
                     f"{psnr_text:>8} {pooled:>8} {row['ssim']:>7.4f}")
    return "\n".join(lines)


def build_parser() -> Parser:
    parser = Parser("evaluate", __doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder, runs/NAME")
    parser.add_argument("--data", type=Path | None, default=None,
                        help="data set; the one it was trained on if not given")
    for name, kind in (("split", Literal["test", "val", "train"]), ("precision", Literal["fp32", "bf16", "fp16"])):
        parser.add_argument(f"--{name}", type=kind, default=None, help=f"as in the job file's [evaluate] {name}")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    _, arguments = build_parser().parse(argv)
    run = RunFolder(arguments.run)
    config = run.read_config()
    given = {name: arguments[name] for name in ("split", "precision") if arguments[name] is not None}
    settings = from_dict(EvaluateSettings, {**config["evaluate"], **given}, str(run.config))
    result = evaluate(run, read_manifest(arguments.data or Path(config["data"])), settings)
    print(format_rows(result["rows"]))


if __name__ == "__main__":
    sys.exit(exit_status(main))
