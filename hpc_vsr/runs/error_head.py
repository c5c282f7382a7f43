"""The error head of a run, ``error-head.pt``: it predicts the error of each pixel that the run's network makes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import ClassVar

import torch

from hpc_vsr.models.error import ErrorHead, error_network
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.state import load_weights
from hpc_vsr.runs.trained import Trained
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import is_valid, sha256, write_checked


@dataclass(frozen=True)
class TrainedError(Trained):
    """A network that predicts the error of another one, for the same frames and in the same units.

    Attributes
    ----------
    base : Trained
        The network whose error it predicts.
    head : ErrorHead
    """

    base: Trained
    head: ErrorHead

    predicts_error: ClassVar[bool] = True

    @classmethod
    def of(cls, base: Trained, head: ErrorHead, checksum: str) -> TrainedError:
        network = error_network(base.network, head).eval().requires_grad_(False)
        return cls(network, base.settings, base.terms, base.step, base.where, checksum, base, head)

    def at(self, sigma: float | None = None, camera_noise: float | None = None) -> TrainedError:
        """Return the same for another blur and noise of the frames; see `Trained.at`."""
        return TrainedError.of(self.base.at(sigma, camera_noise), self.head, self.sha256)


def new_head(trained: Trained) -> ErrorHead:
    """Return an untrained head for a network."""
    core = trained.network.core
    return ErrorHead(trained.terms.channels, core.scale, core.num_frames)


def save_head(run: RunFolder, trained: Trained, head: ErrorHead) -> None:
    """Write the head of a run's network, for the weights of which it was trained."""
    stream = io.BytesIO()
    weights = {name: value.cpu() for name, value in head.state_dict().items()}
    torch.save({"weights": weights, "checkpoint_sha256": trained.sha256}, stream)
    write_checked(run.error_head, stream.getbuffer())


def load_error(run: RunFolder, trained: Trained) -> TrainedError:
    """Return the network that predicts the error of a run's network.

    Raises
    ------
    InputError
        If the run has no head, or it is damaged or was trained for other weights.
    """
    path, mend = run.error_head, f"run 'python -m hpc_vsr.calibrate --run {run.path}'"
    if not path.exists():
        raise InputError(f"{run.path}: does not predict its error yet; {mend}")
    if not is_valid(path):
        raise InputError(f"{path}: is damaged; {mend} again")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        weights, checkpoint = state["weights"], state["checkpoint_sha256"]
    except Exception as error:  # a damaged file fails in many ways inside torch
        raise InputError(f"{path}: cannot be loaded ({type(error).__name__}); {mend} again") from None
    if checkpoint != trained.sha256:
        raise InputError(f"{path}: was trained for other weights than those of {trained.where}; {mend} again")
    head = new_head(trained)
    load_weights(head, weights, str(path))
    return TrainedError.of(trained, head, sha256(path))

