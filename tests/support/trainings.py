"""Trainings of a few steps, and what they leave."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch
from stages import run_stage

from hpc_vsr.experiment.settings import Experiment, TrainSettings
from hpc_vsr.runs.checkpoints import Checkpoints
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.history import append_record
from hpc_vsr.runs.state import load_checkpoint, save_checkpoint
from hpc_vsr.system.config import as_dict
from hpc_vsr.system.files import write_sealed

TINY = ("--model.n_2d", 1, "--model.n_3d", 1, "--model.skip", "wiener", "--train.steps", 6, "--train.batch_size", 4,
        "--train.patch_size", 12, "--train.validate_every", 3, "--train.checkpoint_every", 2, "--train.log_every", 1,
        "--train.warmup_steps", 2, "--train.device", "cpu", "--train.precision", "fp32", "--evaluate.precision", "fp32")


def train_tiny(dataset: Path, out: Path, *more, **options) -> subprocess.CompletedProcess:
    """A training of six steps."""
    return run_stage("train", "--data", dataset, "--out", out, *TINY, *more, **options)


def as_toml(arguments: Sequence) -> str:
    """Return the tables of a job file with these options of a command line; of two the later one counts."""
    tables: dict[str, dict] = {}
    for option, value in zip(arguments[::2], arguments[1::2], strict=True):
        section, name = option.removeprefix("--").split(".")
        tables.setdefault(section, {})[name] = value
    return "".join(f"[{section}]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())
                   for section, table in tables.items())


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    """Return all weights of the newest checkpoint and their average, and its step."""
    state = load_checkpoint(Checkpoints(run / "checkpoints").newest())
    return {"step": torch.tensor(state["step"]),
            **{f"network.{name}": value for name, value in state["network"].items()},
            **{f"average.{name}": value for name, value in state["weights"].items()}}


def assert_equal_to_the_bit(run: Path, other: Path) -> None:
    ours, theirs = final_weights(run), final_weights(other)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def records(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def write_run(folder: Path, step: int, losses: list[float | None], bad: int = 0, steps: int = 60, **train) -> RunFolder:
    """Write what a training leaves: a checkpoint at `step`, or none for 0, and a record for each of the losses."""
    run = RunFolder(folder)
    run.checkpoints.folder.mkdir(parents=True)
    settings = Experiment(data=Path("data/x"), out=folder, train=TrainSettings(steps=steps, **train))
    write_sealed(run.config, {**as_dict(settings), "data_fingerprint": "f", "chosen": {}})
    for number, loss in enumerate(losses, 1):
        append_record(run.metrics, {"step": number, "loss": loss, "samples_per_second": 32.0})
    if step:
        state = {"step": step, "bad_steps": bad, "best_step": 0, "validation_due": False, "x": torch.zeros(1)}
        save_checkpoint(run.checkpoints, state, step, keep=2, best_score=None)
    return run
