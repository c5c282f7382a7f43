"""Measure a trained network and the two baselines on a split of its data set, frame by frame.

Writes metrics-SPLIT.json (every figure of every frame, in every profile) and pictures-SPLIT.npz (a few frames as
pictures) into the run folder; `hpc_vsr.report` shows them.
"""

from __future__ import annotations

import contextlib
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import docstring_parser
import numpy as np
import torch

from hpc_vsr.baselines import tune_noise
from hpc_vsr.checkpoint import best_sha256
from hpc_vsr.config import Parser, as_dict, from_dict
from hpc_vsr.dataset import Split, validation_pairs
from hpc_vsr.errors import InputError, exit_status
from hpc_vsr.files import read_sealed, write_sealed, write_whole
from hpc_vsr.gpus import Device, choose_device, own_device
from hpc_vsr.lock import only_writer, remove_left
from hpc_vsr.manifest import Manifest, check_shards, read_manifest
from hpc_vsr.memory import keep_freed_memory
from hpc_vsr.methods import applied_twice, baselines, network_methods
from hpc_vsr.precision import Precision, choose_precision, warn_of_bf16
from hpc_vsr.runs import RunFolder, Trained, load_trained
from hpc_vsr.scores import measure_flow, measure_split

LOCK = ".evaluate.lock"


@dataclass(frozen=True)
class EvaluateSettings:
    """How the trained network is measured.

    Attributes
    ----------
    split : str
        test, val or train.
    precision : str
        In which the network computes: fp32, bf16, fp16 (GPUs only), or auto, which takes what is fast on the device;
        recorded beside the figures.
    device : str
        auto (a GPU if there is one), cpu or cuda.
    pictures : int
        How many frames are kept as pictures for the report.
    self_ensemble : bool
        Measure also the mean over the 8 symmetries of a square, as a row of its own; takes 8 times as long.
    back_projection : int
        Measure also the network followed by so many steps of back-projection, as a row of its own; 0 does not.
    first_stage : bool
        Measure also what the 2D part alone makes of the centre frame, as rows of its own.
    twice : Path
        Run folder of a network for 2 times; measure also that network applied twice, on a data set for 4 times.
    published : str
        Which table of the published results the report sets beside ours: none, climate or diamond.
    """

    split: Literal["test", "val", "train"] = "test"
    precision: Precision = "auto"
    device: Device = "auto"
    pictures: int = 3
    self_ensemble: bool = False
    back_projection: int = 0
    first_stage: bool = False
    twice: Path | None = None
    published: Literal["none", "climate", "diamond"] = "none"

    def __post_init__(self):
        if not 1 <= self.pictures <= 20:
            raise InputError(f"evaluate.pictures: must be 1 to 20, found {self.pictures}")
        if not 0 <= self.back_projection <= 100:
            raise InputError(f"evaluate.back_projection: must be 0 to 100 steps, found {self.back_projection}")


def evaluate(run: RunFolder, manifest: Manifest, settings: EvaluateSettings) -> dict:
    """Measure bicubic, Wiener and the network of `run`, and write the result into its folder.

    A run may be measured while it is trained; two processes may not measure it at once.

    Raises
    ------
    InputError
        If the run has no valid checkpoint, or its network does not fit the data set.
    """
    run.read_config()
    with only_writer(run.path, LOCK):
        return _evaluate(run, manifest, settings)


def _evaluate(run: RunFolder, manifest: Manifest, settings: EvaluateSettings) -> dict:
    keep_freed_memory()
    run.check_name()
    trained = load_trained(run)
    _check_fit(trained, manifest)
    check_shards(manifest, {settings.split, "val"})
    device = own_device(choose_device(settings.device))
    noise = tune_noise(validation_pairs(manifest), manifest.scale, manifest.degradation.blur_sigma)
    precision = _choose_precision(trained, manifest, settings, device)
    methods = [*baselines(manifest, noise, device),
               *network_methods(run.name, trained, manifest, precision, device, settings.self_ensemble,
                                settings.back_projection, settings.first_stage)]
    if settings.twice is not None:
        methods.append(applied_twice(RunFolder(settings.twice), manifest, precision, device))
    split = Split(manifest, settings.split)
    rows, pictures = measure_split(split, methods, settings.pictures, device)
    result = {
        "run": run.name, "split": settings.split, "dataset": describe(manifest), "step": trained.step,
        "precision": precision, "device": device.type, "wiener_noise": noise,
        "trained_on": trained.terms.fingerprint, "checkpoint_sha256": trained.sha256,
        "twice_sha256": _sha256_of_twice(settings), "settings": as_dict(settings), "rows": rows,
    }
    if trained.network.has_flow:
        result["flow"] = measure_flow(trained.network, split, device)
    _say_if_replaced(run.evaluation(settings.split), manifest)
    with write_whole(run.pictures(settings.split)) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **pictures)
    write_sealed(run.evaluation(settings.split), result)
    return result


def _choose_precision(trained: Trained, manifest: Manifest, settings: EvaluateSettings, device: torch.device) -> str:
    """The precision of the evaluation; says on standard error which and why."""
    network, channels = trained.network, len(manifest.channels)
    choice = choose_precision(settings.precision, network, channels, device,
                              rounding_shows=not manifest.is_8bit and network.skip is None, where="evaluate.precision")
    print(choice, file=sys.stderr)
    warning = warn_of_bf16(choice, network, channels, device) if settings.precision != "auto" else ""
    if warning:
        print(warning, file=sys.stderr)
    return choice.precision


def evaluate_if_needed(run: RunFolder, manifest: Manifest, settings: EvaluateSettings) -> None:
    """`evaluate`, unless these weights were measured with these settings on this data set before."""
    with contextlib.suppress(InputError):
        found = read_sealed(run.evaluation(settings.split), "")
        wanted = {"run": run.name, "checkpoint_sha256": best_sha256(run.checkpoints),
                  "twice_sha256": _sha256_of_twice(settings)}
        if (all(found.get(key) == value for key, value in wanted.items())
                and _measured_as(found["settings"]) == _measured_as(as_dict(settings))
                and found["dataset"]["fingerprint"] == manifest.fingerprint and run.pictures(settings.split).exists()):
            print(f"{run.path}: measured before", file=sys.stderr)
            remove_left(run.path, LOCK)
            return
    evaluate(run, manifest, settings)


def _measured_as(settings: dict) -> dict:
    """What decides the figures of an evaluation; the figures of a CPU are those of a GPU to their last digits."""
    return {name: value for name, value in settings.items() if name != "device"}


def _sha256_of_twice(settings: EvaluateSettings) -> str | None:
    return None if settings.twice is None else best_sha256(RunFolder(settings.twice).checkpoints)


def _say_if_replaced(path: Path, manifest: Manifest) -> None:
    """Tell that an evaluation on another data set gives way to this one: a run has one a split."""
    with contextlib.suppress(InputError, KeyError, TypeError):
        before = read_sealed(path, "")["dataset"]
        if before["fingerprint"] != manifest.fingerprint:
            print(f"{path}: replaces the evaluation on {before['name']}", file=sys.stderr)


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
    if terms.for_video != manifest.is_8bit:
        kinds = ("grey levels of a video", "values of a field")
        trained_for, found = kinds if not manifest.is_8bit else kinds[::-1]
        raise InputError(f"{trained.where}: was trained for {trained_for}; {manifest.folder} has {found}")


def format_rows(rows: Sequence[dict]) -> str:
    """The rows as an aligned table of text."""
    width = max(8, *(len(row["method"]) for row in rows))
    head = f"{'method':<{width}} {'profile':<8} {'frames':>6} {'MSE':>10} {'PSNR/dB':>8} {'pooled':>8} {'SSIM':>7}"
    lines = [head, "-" * len(head)]
    for row in rows:
        psnr_text, pooled = ("∞" if row[key] is None else f"{row[key]:.2f}" for key in ("psnr", "psnr_pooled"))
        mse, ssim = ("–" if row[key] is None else f"{row[key]:.4g}" for key in ("mse", "ssim"))
        lines.append(f"{row['method']:<{width}} {row['profile']:<8} {row['frames']:>6} {mse:>10} {psnr_text:>8} "
                     f"{pooled:>8} {ssim:>7}")
    return "\n".join(lines)


def build_parser() -> Parser:
    parser = Parser("evaluate", __doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder, runs/NAME")
    parser.add_argument("--data", type=Path | None, default=None,
                        help="data set; the one it was trained on if not given")
    meanings = {entry.arg_name: entry.description for entry in docstring_parser.parse(EvaluateSettings.__doc__).params}
    for name, kind in typing.get_type_hints(EvaluateSettings).items():
        parser.add_argument(f"--{name}", type=kind | None, default=None,
                            help=f"{' '.join(meanings[name].split())} As in the run's config.json if not given.")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    _, arguments = build_parser().parse(argv)
    run = RunFolder(arguments.run)
    config = run.read_config()
    data = arguments.data or config["data"]
    if data is None:
        raise InputError(f"{run.path}: was imported and has no data set of its own; name one with --data")
    names = [name for name in typing.get_type_hints(EvaluateSettings) if arguments[name] is not None]
    given = {name: as_dict(arguments[name]) for name in names}
    settings = from_dict(EvaluateSettings, {**config["evaluate"], **given}, str(run.config))
    result = evaluate(run, read_manifest(Path(data)), settings)
    print(format_rows(result["rows"]))


if __name__ == "__main__":
    sys.exit(exit_status(main))
