"""The two tables of the 2021 paper, and how a run differs from its protocol."""

from __future__ import annotations

from dataclasses import dataclass

from hpc_vsr.evaluation.record import Row
from hpc_vsr.report.record import RunSummary
from hpc_vsr.system.config import ABSENT


@dataclass(frozen=True)
class Ours:
    """A run's figures beside a published row, and how it differs from the published protocol, in words."""

    run: str
    mse: float | None
    ssim: float | None
    psnr: float | None
    differences: list[str]


@dataclass(frozen=True)
class PublishedRow:
    """A row of a published table, and our results for the same network."""

    table: str
    note: str
    network: str
    mse: float | None
    ssim: float
    psnr: float
    ours: list[Ours]


PAPER = {"climate": [("previous", 4.9283e-05, 0.9896, 43.0746, ""),  # network, MSE, SSIM, PSNR, note
                     ("delta", 1.9801e-05, 0.9943, 46.0013, "preliminary"),
                     ("parallel5", 2.8866e-05, 0.9953, 45.6618, "preliminary"),
                     ("raw", 0.03296, 0.6517, 14.8202, "")],
         "diamond": [("delta", 125.1786, 0.9155, 27.1675, ""),
                     ("parallel5", 127.5626, 0.9184, 27.0820, ""),
                     ("parallel5", None, 0.972, 27.6, "300 training frames; the SSIM is likely a slip for 0.9272"),
                     ("raw", 9193.6647, 0.0392, 8.5000, "")]}
SOURCES = {"climate": "the paper's Climate field, which is not public; ours is another simulation",
           "diamond": "the paper's Diamond video, which is not public; ours is another clip of the same kind"}
RAW = ("The published raw rows come from a resize with swapped sides and nearest interpolation, which scrambles the "
       "image; compare with bicubic enlargement instead.")
PROTOCOL_EPOCHS = 300
STRUCTURE = {"n_2d": 5, "n_3d": 5, "depth": "centre", "recursive_streams": [2, 3], "features_2d": 12,
             "num_recursive_blocks": 0}


def published_rows(report_rows: list[Row], runs: list[RunSummary], table: str) -> list[PublishedRow]:
    """Return the rows of a published table, "climate" or "diamond", each with our results for the same network."""
    measured = {row.method: row for row in report_rows if row.profile == "paper"}
    result = []
    for network, mse, ssim, psnr, note in PAPER[table]:
        if network == "raw":
            ours = [_ours(measured["bicubic"], ["bicubic"])]
        else:
            ours = [_ours(measured[run.name], differences(run)) for run in runs if run.model.name == network]
        ours.sort(key=lambda item: item.psnr if item.psnr is not None else float("inf"), reverse=True)
        result.append(PublishedRow(table, note, network, mse, ssim, psnr, ours))
    return result


def differences(run: RunSummary) -> list[str]:
    """Return how a run differs from the protocol behind the published tables, besides its data."""
    model, train = run.model, run.train
    if train is None:
        return ["the authors' own weights, trained on their data"]
    found = []
    epochs = run.epochs
    if epochs is not None and abs(epochs - PROTOCOL_EPOCHS) > 0.5:
        found.append(f"{epochs:.3g} epochs instead of {PROTOCOL_EPOCHS}")
    if train.patch_size:
        found.append(f"patches of {train.patch_size}x{train.patch_size} LR pixels instead of frames")
    if train.batch_size != 1:
        found.append(f"batches of {train.batch_size} instead of 1")
    if train.lr != 5e-4 or train.final_lr != 1 or train.warmup_steps:
        shape = "constant" if train.final_lr == 1 and not train.warmup_steps else "warm-up and cosine"
        found.append(f"learning rate {train.lr:g}, {shape}, instead of 5e-4, constant")
    if train.loss != "mse":
        found.append(f"{train.loss} loss instead of MSE")
    if train.augment:
        found.append("augmentation")
    if train.ema_decay:
        found.append("averaged weights")
    if train.precision != "fp16":
        found.append(f"{train.precision} instead of fp16 with scaling")
    if model.init != "torch":
        found.append("our initialisation")
    if model.value_range != 255 and run.is_grey:
        found.append("values 0..1 instead of 0..255")
    span = [0.0, 255.0 if run.is_grey else 1.0]
    if model.name == "parallel5" and model.output_range != span:
        found.append(f"output range {model.output_range or 'free'}")
    if model.name != "parallel5" and model.output_range:
        found.append(f"output kept in {model.output_range}")
    found += [f"{name} {value} instead of {usual}" for name, usual in STRUCTURE.items()
              if (value := getattr(model, name)) != usual]
    if model.name == "previous" and not train.first_stage_steps:
        found.append("both stages trained together")
    if run.variables is not ABSENT:
        found.append(f"{', '.join(run.variables)} together instead of one variable, and the mean of their figures")
    if train.num_frames:
        found.append(f"{train.num_frames} training frames")
    if train.clip_norm:
        found.append(f"gradients clipped at {train.clip_norm:g}")
    if model.skip != "none":
        found.append(f"{model.skip} skip")
    if model.input != "plain":
        found.append(f"{model.input} input")
    if model.kernel_axes != "published":
        found.append("kernels along the time axis")
    return found


def _ours(row: Row, differing: list[str]) -> Ours:
    return Ours(row.method, row.mse, row.ssim, row.psnr, differing)
