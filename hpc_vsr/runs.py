"""A run folder: the names of all that a run leaves, and the trained network in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_vsr.checkpoint import find_best, load_checkpoint, load_weights
from hpc_vsr.config import as_dict, check_finite, from_dict
from hpc_vsr.errors import InputError
from hpc_vsr.files import read_sealed, sha256
from hpc_vsr.manifest import Manifest
from hpc_vsr.models import ModelSettings, Network, build_model
from hpc_vsr.sources.planes import GREY

CONFIG_KEYS = ("data", "model", "train", "evaluate", "data_fingerprint")
RESERVED = ("bicubic", "wiener", "lr", "hr", "frame", "methods", "file")


@dataclass(frozen=True)
class RunFolder:
    """Names of the files in ``runs/NAME``; docs/formats.md says what each holds."""

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

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def evaluation(self, split: str) -> Path:
        return self.path / f"metrics-{split}.json"

    def pictures(self, split: str) -> Path:
        return self.path / f"pictures-{split}.npz"

    def read_config(self) -> dict:
        """The resolved job of the run; `InputError` if this is not a run folder."""
        config = read_sealed(self.config, "the command that made the run writes it anew" if self.config.exists()
                             else "name the folder of a training run, runs/NAME")
        missing = [key for key in CONFIG_KEYS if key not in config]
        if missing:
            raise InputError(f"{self.config}: is not the configuration of a training run; "
                             f"it lacks {', '.join(missing)}")
        kinds = {"data": (str, type(None)), "model": dict, "train": (dict, type(None)), "evaluate": dict,
                 "data_fingerprint": str, "imported": (dict, type(None))}
        wrong = [key for key, kind in kinds.items() if not isinstance(config.get(key), kind)]
        if config["train"] is None and not {"file", "sha256"} <= (config.get("imported") or {}).keys():
            wrong.append("imported")
        if wrong:
            raise InputError(f"{self.config}: its {', '.join(wrong)} are none that this program writes")
        return config

    def check_name(self) -> None:
        """Raise `InputError` if a report could not tell the run from its other rows and pictures."""
        if self.name in RESERVED:
            raise InputError(f"{self.path}: a run cannot be named {self.name!r}, which a report uses; "
                             "choose another --out")


@dataclass(frozen=True)
class DataTerms:
    """What a network was trained for, kept in its checkpoint: values and degradation of its data set.

    Attributes
    ----------
    channels, scale : int
    sigma : float
        Blur in HR pixels.
    noise : float
        Noise-to-signal power of the Wiener filter, tuned on the validation split.
    offset, extent : float
        (value - offset) / extent is 0..1 on the training split.
    fingerprint : str
        Of the data set.
    is_video : bool, optional
        Grey levels of 8 bits; else the values of a field. Checkpoints of earlier versions do not say.
    """

    channels: int
    scale: int
    sigma: float
    noise: float
    offset: float
    extent: float
    fingerprint: str
    is_video: bool | None = None

    def __post_init__(self):
        check_finite(self, "data_terms")
        if not (1 <= self.channels <= 3 and self.scale in (2, 4) and 0 <= self.sigma <= 10 and self.noise >= 0
                and self.extent > 0):
            raise InputError(f"data_terms: are none that this program writes: {self}")

    @classmethod
    def of(cls, manifest: Manifest, noise: float) -> DataTerms:
        return cls(len(manifest.channels), manifest.scale, manifest.degradation.blur_sigma, noise,
                   manifest.offset, manifest.extent, manifest.fingerprint, manifest.is_8bit)

    @property
    def for_video(self) -> bool:
        return (self.offset, self.extent) == (0.0, GREY) if self.is_video is None else self.is_video

    def build(self, settings: ModelSettings) -> Network:
        """The initialised network for this data."""
        return build_model(settings, self.channels, self.scale, self.sigma, self.noise)


@dataclass(frozen=True)
class Trained:
    """A trained network and what it was trained for."""

    network: Network
    settings: ModelSettings
    terms: DataTerms
    step: int
    where: str
    sha256: str


def network_state(settings: ModelSettings, terms: DataTerms, weights: dict) -> dict[str, Any]:
    """The part of a checkpoint that `load_trained` reads."""
    return {"model_settings": as_dict(settings), "data_terms": as_dict(terms), "weights": weights}


def load_trained(run: RunFolder) -> Trained:
    """The network of a run with its best validated weights, on the CPU, ready for inference.

    Raises
    ------
    InputError
        If the folder is no run, has no valid checkpoint, or the checkpoint is of another network than config.json.
    """
    config = run.read_config()
    path = find_best(run.checkpoints)
    try:
        state, checksum = load_checkpoint(path), sha256(path)
    except (InputError, FileNotFoundError):
        if path.exists():
            raise
        path = find_best(run.checkpoints)  # a training that goes on has pruned it meanwhile
        state, checksum = load_checkpoint(path), sha256(path)
    where = str(path)
    settings = from_dict(ModelSettings, config["model"], str(run.config))
    if from_dict(ModelSettings, state["model_settings"], where) != settings:
        raise InputError(f"{where}: is a checkpoint of another network, {state['model_settings']}; "
                         f"{run.config} has {config['model']}")
    terms = from_dict(DataTerms, state["data_terms"], where)
    network = terms.build(settings)
    load_weights(network, state["weights"], where)
    network.eval().requires_grad_(False)
    return Trained(network, settings, terms, state["step"], where, checksum)
