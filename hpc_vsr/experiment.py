"""An experiment: which data, which network, how it is trained and measured. The job files in ``jobs/`` are these."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_vsr import files
from hpc_vsr.checkpoint import load_checkpoint, newest_valid
from hpc_vsr.config import Parser, as_dict, check_finite, from_dict
from hpc_vsr.dataset import Resident
from hpc_vsr.errors import InputError
from hpc_vsr.evaluate import EvaluateSettings
from hpc_vsr.gpus import Device
from hpc_vsr.manifest import Manifest, read_manifest
from hpc_vsr.models import ModelSettings, check_scale
from hpc_vsr.optim import Loss
from hpc_vsr.precision import Choice, Precision
from hpc_vsr.runs import RunFolder
from hpc_vsr.splits import WINDOW


@dataclass(frozen=True)
class TrainSettings:
    """How the network is trained.

    Attributes
    ----------
    steps : int
        Optimiser steps.
    batch_size : int
        Samples in a step, over all ranks.
    micro_batches : int
        Parts in which each rank computes its samples of a step, one after the other, for less memory.
    patch_size : int
        Side of a training patch in LR pixels; 0 takes whole frames.
    augment : bool
        Mirror, turn and reverse in time.
    num_frames : int
        Frames of the training split that are used, the last ones; 0 uses all.
    loss : str
        mse or charbonnier, on values 0 to model.value_range.
    mse_from : float
        Fraction of the steps after which the loss is mse; 1 keeps the loss.
    flow_weight : float
        Weight of the photometric error that trains the flow of flow4x.
    first_stage_steps : int
        previous: steps that train the 2D part alone, which is frozen then; 0 trains both parts together.
    lr : float
        Peak learning rate of Adam.
    warmup_steps : int
        Steps of linear growth to the peak; a cosine follows.
    final_lr : float
        Learning rate of the last step as a fraction of the peak; 1 keeps it constant.
    ema_decay : float
        Decay of the moving average of the weights; 0 uses the weights themselves.
    clip_norm : float
        Largest norm of the gradient; 0 does not clip.
    precision : str
        auto takes what is fast on the device: on a GPU bf16, or fp16 with loss scaling where there is no bf16; on a CPU
        bf16 or fp32, whichever a short measurement finds faster. Or fp32, bf16, fp16 (GPUs only).
    seed : int
        Of the initialisation, the order and the augmentation.
    validate_every : int
        Steps between validations; 0 validates at the end alone.
    validate_samples : int
        Samples of the validation split used, evenly spread; 0 uses all.
    checkpoint_every : int
        Steps between checkpoints; validations and the end have one too.
    keep_checkpoints : int
        How many of the newest stay, besides the best.
    log_every : int
        Steps between lines in metrics.jsonl.
    num_workers : int
        Processes that read patches when the frames are not kept in memory.
    resident : str
        Whether the training frames are kept on the device: always, never, or auto if they fit.
    device : str
        auto, cpu or cuda.
    deterministic : bool
        On a GPU, take only algorithms of cuDNN that give the same bits each time, so that a resumed run is, to the bit,
        one that was never stopped; somewhat slower. On a CPU that is so anyway, for the same number of ranks.
    verify_shards : bool
        Compare every byte of the training and validation shards with dataset.json at each start, a share a rank.
    """

    steps: int = 20000
    batch_size: int = 16
    micro_batches: int = 1
    patch_size: int = 64
    augment: bool = True
    num_frames: int = 0
    loss: Loss = "charbonnier"
    mse_from: float = 1.0
    flow_weight: float = 0.1
    first_stage_steps: int = 0
    lr: float = 1e-3
    warmup_steps: int = 100
    final_lr: float = 0.01
    ema_decay: float = 0.999
    clip_norm: float = 0.0
    precision: Precision = "auto"
    seed: int = 0
    validate_every: int = 1000
    validate_samples: int = 0
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    log_every: int = 20
    num_workers: int = 0
    resident: Resident = "auto"
    device: Device = "auto"
    deterministic: bool = False
    verify_shards: bool = True

    def __post_init__(self):
        check_finite(self, "train")
        for name in ("steps", "batch_size", "micro_batches", "checkpoint_every", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"train.{name}: must be at least 1, found {getattr(self, name)}")
        for name in ("patch_size", "warmup_steps", "clip_norm", "validate_every", "validate_samples", "num_workers",
                     "seed", "num_frames", "flow_weight", "first_stage_steps"):
            if getattr(self, name) < 0:
                raise InputError(f"train.{name}: must not be negative, found {getattr(self, name)}")
        if not 0 <= self.mse_from <= 1:
            raise InputError(f"train.mse_from: must be a fraction from 0 to 1, found {self.mse_from}")
        if self.first_stage_steps >= self.steps:
            raise InputError(f"train.first_stage_steps: must be fewer than the {self.steps} steps of train.steps, "
                             f"found {self.first_stage_steps}")
        if 0 < self.num_frames < WINDOW:
            raise InputError(f"train.num_frames: must be 0 (all) or at least {WINDOW}, found {self.num_frames}")
        if not (self.lr > 0 and 0 < self.final_lr <= 1 and 0 <= self.ema_decay < 1):
            raise InputError("train: lr must be positive, final_lr in (0, 1] and ema_decay in [0, 1), found "
                             f"{self.lr}, {self.final_lr} and {self.ema_decay}")
        if self.seed >= 2**63:
            raise InputError(f"train.seed: must be below 2^63, found {self.seed}")
        if 0 < self.patch_size < 8:
            raise InputError(f"train.patch_size: must be 0 (whole frames) or at least 8, found {self.patch_size}")


# Settings that may change between a run and its resumption: they do not change what is learned.
NEUTRAL = ("keep_checkpoints", "log_every", "num_workers", "resident", "device", "deterministic",
           "checkpoint_every", "micro_batches", "verify_shards")


@dataclass(frozen=True)
class Experiment:
    """A job: which data, which network, how it is trained and evaluated.

    Attributes
    ----------
    data : Path
        Folder of the data set, as `hpc_vsr.preprocess` writes it.
    out : Path
        Run folder; runs/NAME of the job file if not given.
    model : ModelSettings
    train : TrainSettings
    evaluate : EvaluateSettings
    """

    data: Path
    out: Path | None = None
    model: ModelSettings = dataclasses.field(default_factory=ModelSettings)
    train: TrainSettings = dataclasses.field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = dataclasses.field(default_factory=EvaluateSettings)


def check_fit(experiment: Experiment, manifest: Manifest, world_size: int) -> None:
    """Raise `InputError` if the settings do not suit the data or the number of ranks; before anything is written."""
    settings = experiment.train
    check_scale(experiment.model, manifest.scale)
    if settings.first_stage_steps and experiment.model.name != "previous":
        raise InputError(f"train.first_stage_steps: {experiment.model.name} has no first stage of its own; "
                         "set it to 0 or model.name to previous")
    first, stop = manifest.content["splits"]["train"]
    if settings.num_frames > stop - first:
        raise InputError(f"train.num_frames: {settings.num_frames} are more than the training split has, "
                         f"{stop - first}")
    height, width = manifest.lr_size
    if settings.patch_size > min(height, width):
        raise InputError(f"train.patch_size: {settings.patch_size} LR pixels are more than the frames have, "
                         f"{width}x{height}")
    check_batch(settings, world_size)


def check_batch(settings: TrainSettings, world_size: int) -> None:
    """Raise `InputError` if the ranks cannot share a batch equally."""
    if settings.batch_size % world_size:
        raise InputError(f"train.batch_size: {settings.batch_size} cannot be dealt equally to {world_size} ranks; "
                         "choose a multiple")
    share = settings.batch_size // world_size
    if share % settings.micro_batches:
        raise InputError(f"train.micro_batches: the {share} samples of a rank cannot be cut into "
                         f"{settings.micro_batches} equal parts")


def open_run_folder(run_folder: RunFolder, experiment: Experiment, manifest: Manifest, choice: Choice) -> None:
    """Write config.json before any work; `InputError` if the folder holds a run of other settings or data.

    `choice` is what decided the precision.

    A folder in which no checkpoint was written yet has nothing to lose and takes any settings.
    """
    run_folder.check_name()
    wanted = {**as_dict(experiment), "data_fingerprint": manifest.fingerprint, "chosen": as_dict(choice)}
    begun = read_begun(run_folder)
    if begun is not None:
        check_same_settings(run_folder, experiment)
        if begun["data_fingerprint"] != manifest.fingerprint:
            raise InputError(f"{run_folder.path}: was trained on another data set than {manifest.folder}; "
                             "choose another --out or give the data set it was trained on")
    elif not run_folder.config.exists() and any(not path.name.startswith(".") for path in run_folder.path.iterdir()):
        raise InputError(f"{run_folder.path}: is not empty and holds no run; move it away, or "
                         "choose another --out")
    files.write_sealed(run_folder.config, wanted)


def check_same_settings(run_folder: RunFolder, experiment: Experiment) -> None:
    """Raise `InputError` if the folder holds a trained run of other settings."""
    begun = read_begun(run_folder)
    if begun is None:
        return
    found = decisive_settings(begun)
    differing = _differences(found, _as_begun(decisive_settings(as_dict(experiment)), found))
    if differing:
        raise InputError(f"{run_folder.path}: holds a run with other settings: {'; '.join(differing[:4])}; "
                         "choose another --out or delete that folder")


def read_begun(run_folder: RunFolder) -> dict[str, Any] | None:
    """What config.json says of a run that has a checkpoint; where it is damaged or missing, what that checkpoint says.
    """
    newest = newest_valid(run_folder.checkpoints)
    if newest is None:
        return None
    try:
        return run_folder.read_config()
    except InputError:
        state = load_checkpoint(newest)
        if "config" not in state:  # imported
            raise
        return {**state["config"], "data_fingerprint": state["data_terms"]["fingerprint"]}


def has_finished(run_folder: RunFolder, experiment: Experiment) -> bool:
    """Whether the run folder holds this experiment, trained to its last step on its data set as that is now."""
    newest = newest_valid(run_folder.checkpoints)
    if newest is None or int(newest.stem.removeprefix("step-")) < experiment.train.steps:
        return False
    try:
        if load_checkpoint(newest).get("validation_due"):
            return False
        config = run_folder.read_config()
    except InputError:  # damaged: training says so
        return False
    found = decisive_settings(config)
    return (found == _as_begun(decisive_settings(as_dict(experiment)), found)
            and config["data_fingerprint"] == read_manifest(experiment.data).fingerprint)


def decisive_settings(config: dict) -> dict[str, Any]:
    """The settings that decide what is learned, as {section.key: value}; what an older run does not have is as it was.

    `config` is that of a run, or an experiment as a dict.
    """
    if config["train"] is None:
        return {"imported": config.get("imported")}
    sections = {"model": as_dict(from_dict(ModelSettings, config["model"], "model")),
                "train": as_dict(from_dict(TrainSettings, config["train"], "train"))}
    return {f"{section}.{key}": value for section, settings in sections.items() for key, value in settings.items()
            if not (section == "train" and key in NEUTRAL)}


def _as_begun(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The settings that are wanted; where their precision is auto, a run keeps the one that it was begun in."""
    auto = wanted.get("train.precision") == "auto" and "train.precision" in found
    return {**wanted, "train.precision": found["train.precision"]} if auto else wanted


def _differences(found: dict, wanted: dict) -> list[str]:
    return [f"{key} is {found.get(key)!r} there, {wanted.get(key)!r} now"
            for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)]


def read_experiment(parser: Parser, argv: Sequence[str] | None) -> tuple[Experiment, Any]:
    """The experiment of a command line; its run folder is named after the job file if it is not given."""
    experiment, arguments = parser.parse(argv)
    if experiment.out is None:
        if arguments.config is None:
            raise InputError("--out is missing: name the run folder, such as --out runs/delta")
        experiment = dataclasses.replace(experiment, out=Path("runs") / arguments.config.stem)
    return experiment, arguments
