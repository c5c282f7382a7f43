"""A run folder: the names of its files, and its configuration."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from hpc_vsr.runs.checkpoints import Checkpoints
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import read_sealed

CONFIG_KEYS = ("data", "model", "train", "evaluate", "data_fingerprint")
RESERVED = ("bicubic", "wiener", "lr", "hr", "frame", "methods", "file")


@dataclass(frozen=True)
class RunFolder:
    """Names of the files in ``runs/NAME``; docs/formats.md describes each file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.absolute().name

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @functools.cached_property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.path / "checkpoints")

    @property
    def error_head(self) -> Path:
        return self.path / "error-head.pt"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def evaluation(self, split: str) -> Path:
        return self.path / f"metrics-{split}.json"

    def pictures(self, split: str) -> Path:
        return self.path / f"pictures-{split}.npz"

    def read_config(self) -> dict:
        """Return the configuration of the run; raise `InputError` if this is not a run folder."""
        config = read_sealed(self.config, "run the command that made the run again" if self.config.exists()
                             else "name the folder of a training run, runs/NAME")
        missing = [key for key in CONFIG_KEYS if key not in config]
        if missing:
            raise InputError(f"{self.config}: is not the configuration of a training run; "
                             f"it lacks {', '.join(missing)}")
        kinds = {"data": (str, type(None)), "model": dict, "train": (dict, type(None)), "evaluate": dict,
                 "data_fingerprint": str, "imported": (dict, type(None)), "start": (dict, type(None))}
        wrong = [key for key, kind in kinds.items() if not isinstance(config.get(key), kind)]
        if config["train"] is None and not {"file", "sha256"} <= (config.get("imported") or {}).keys():
            wrong.append("imported")
        if wrong:
            raise InputError(f"{self.config}: invalid values for: {', '.join(wrong)}; run the command that made the "
                             "run again")
        return config

    def find_data(self, given: Path | None) -> Path:
        """Return the data set that is given, or that of the training; raise `InputError` if there is none."""
        data = given or self.read_config()["data"]
        if data is None:
            raise InputError(f"{self.path}: was imported and has no data set of its own; name one with --data")
        return Path(data)

    def check_name(self) -> None:
        """Raise `InputError` if reports use the run's name for something else."""
        if self.name in RESERVED:
            raise InputError(f"{self.path}: a run cannot be named {self.name!r}, because reports use that name; "
                             "choose another --out")
