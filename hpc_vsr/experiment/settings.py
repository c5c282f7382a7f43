"""The settings of an experiment, as in a job file: its data, its network, its training and its evaluation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from hpc_vsr.data.splits import WINDOW
from hpc_vsr.models.blurs import BLUR, CAMERA_NOISE, parse_levels
from hpc_vsr.models.settings import ModelSettings, Precision
from hpc_vsr.system.config import Device, check_finite
from hpc_vsr.system.errors import InputError

Loss = Literal["mse", "charbonnier"]
Resident = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class TrainSettings:
    """Settings of the training.

    Attributes
    ----------
    from_ : Path
        Fine-tune: start from the network of this run folder instead of from new weights. The settings of [model] are
        those of that run, unless they are given; docs/models.md says what must agree.
    steps : int
        Optimiser steps.
    batch_size : int
        Samples of a step, summed over all ranks.
    micro_batches : int
        To save memory, each rank computes its samples of a step in this many parts, one after the other.
    patch_size : int
        Side of a training patch in LR pixels; 0 trains on whole frames.
    augment : bool
        Mirror and turn patches, and reverse them in time.
    sigma : str
        Train for a range of blurs, LOW..HIGH in HR pixels (standard deviation; 0 is no blur), such as 0.5..4: the LR
        frames are made from the HR frames with each of 8 blurs, and the fixed filters follow. If not given, the LR
        frames are those of the data set.
    noise : str
        Train for noisy recordings too, LOW..HIGH in grey levels (standard deviation), such as 0..4: each batch has one
        of 4 levels of white noise on its LR frames, and the fixed filters follow. LOW is 0, because the data set is
        taken as without noise.
    num_frames : int
        Train on this many frames only, the last ones of the training split; 0 uses all.
    loss : str
        mse or charbonnier, on values 0 to model.value_range.
    mse_from : float
        Switch to mse after this fraction of the steps; 1 never switches.
    flow_weight : float
        Weight of the photometric error, which trains the optical flow of flow4x.
    first_stage_steps : int
        Only for the network previous: train the 2D part for this many steps, then freeze it; 0 trains both parts
        together.
    lr : float
        Peak learning rate of Adam.
    warmup_steps : int
        Steps over which the learning rate grows to its peak; a cosine follows.
    final_lr : float
        Learning rate of the last step, as a fraction of the peak; 1 keeps it constant.
    ema_decay : float
        Decay of the moving average of the weights; 0 uses the weights themselves.
    clip_norm : float
        Clip the gradient to this norm; 0 does not clip.
    precision : str
        auto takes what is fast on the device: on a GPU bf16, or fp16 with loss scaling where there is no bf16; on a CPU
        bf16 or fp32, whichever a short measurement finds faster. Or fp32, bf16, fp16 (GPUs only).
    seed : int
        Seed for initialisation, sample order and augmentation.
    validate_every : int
        Steps between validations; 0 validates only at the end.
    validate_samples : int
        Validate on this many samples, spread evenly over the validation split; 0 uses all.
    checkpoint_every : int
        Steps between checkpoints. Each validation and the last step write one too.
    keep_checkpoints : int
        Keep this many of the newest checkpoints, and the best one.
    log_every : int
        Steps between lines in metrics.jsonl.
    num_workers : int
        Processes that read patches, if the frames are not kept in memory.
    resident : str
        Keep the training frames on the device: always, never, or auto (if they fit).
    device : str
        auto, cpu or cuda.
    deterministic : bool
        On a GPU, use only algorithms of cuDNN that give the same bits each time; this is somewhat slower. A resumed run
        then equals one that was never stopped, to the bit. On a CPU it always does, for the same number of ranks.
    verify_shards : bool
        At each start, compare every byte of the training and validation shards with dataset.json; ranks share the work.
    tensorboard : bool
        Also write the curves for TensorBoard, to tensorboard/ in the run folder, and the SSIM of each validation; needs
        'pip install hpc-vsr[tensorboard]'.
    """

    from_: Path | None = None
    steps: int = 20000
    batch_size: int = 16
    micro_batches: int = 1
    patch_size: int = 64
    augment: bool = True
    sigma: str = ""
    noise: str = ""
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
    tensorboard: bool = False

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
        for text, quantity, where in ((self.sigma, BLUR, "train.sigma"), (self.noise, CAMERA_NOISE, "train.noise")):
            if text:
                parse_levels(text, quantity, where)
        if self.noise and self.camera_noise[0] > 0:
            raise InputError("train.noise: must begin at 0, because the data set, with which the network is "
                             f"validated, is taken as without noise, found {self.noise}")
        if self.seed >= 2**63:
            raise InputError(f"train.seed: must be below 2^63, found {self.seed}")
        if 0 < self.patch_size < 8:
            raise InputError(f"train.patch_size: must be 0 (whole frames) or at least 8, found {self.patch_size}")

    @property
    def sigmas(self) -> list[float]:
        """The blurs of the training, in HR pixels; none for that of the data set."""
        return parse_levels(self.sigma, BLUR, "train.sigma") if self.sigma else []

    @property
    def camera_noise(self) -> list[float]:
        """The noise of the LR frames of the training, in grey levels; none for that of the data set."""
        return parse_levels(self.noise, CAMERA_NOISE, "train.noise") if self.noise else []


@dataclass(frozen=True)
class EvaluateSettings:
    """Settings of the evaluation.

    Attributes
    ----------
    split : str
        test, val or train.
    precision : str
        Precision of the network: fp32, bf16, fp16 (GPUs only), or auto, which takes what is fast on the device; the
        report shows it.
    device : str
        auto (a GPU if there is one), cpu or cuda.
    pictures : int
        Keep this many frames as pictures for the report.
    self_ensemble : bool
        Also measure the mean over the 8 symmetries of a square, in a row of its own; takes 8 times as long.
    back_projection : int
        Also measure the network followed by this many steps of back-projection, in a row of its own; 0 does not.
    first_stage : bool
        Also measure the output of the 2D part for the centre frame, in rows of its own (delta, parallel5, previous).
    twice : Path
        Run folder of a 2x network. On a 4x data set, also measure that network applied twice.
    published : str
        Table of published results to show beside ours in the report: none, climate or diamond.
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


@dataclass(frozen=True)
class Experiment:
    """An experiment: the data set, the network, its training and its evaluation.

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

    impossible: ClassVar[str] = ""  # why it cannot be trained; see `ImpossiblePoint`


@dataclass(frozen=True)
class ImpossiblePoint(Experiment):
    """A point of a sweep whose settings contradict each other: it fails by itself, and the other points are trained.

    Attributes
    ----------
    impossible : str
        Why; the other fields are those of the job file without the point's settings.
    """

    impossible: str = ""  # type: ignore[misc]
