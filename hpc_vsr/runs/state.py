"""Saves and loads the state of a run in a checkpoint. Writing is atomic, and loading runs no code of the file."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from hpc_vsr.models.enlarge import adopt_lengths
from hpc_vsr.runs.checkpoints import Checkpoints
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import write_checked

TYPES = {"model_settings": dict, "data_terms": dict, "weights": dict, "network": dict, "optimiser": dict,
         "scaler": dict, "rng": Tensor, "step": int, "samples_seen": int, "best_psnr": (float, int, type(None)),
         "best_step": int, "bad_steps": int}
LATER_TYPES = {"validation_due": bool, "skipped": int, "config": dict}  # earlier versions did not save these


def save_checkpoint(checkpoints: Checkpoints, state: dict, step: int, keep: int, best_score: float | None) -> Path:
    """Write ``step-00001000.pt`` and then ``step-00001000.pt.sha256``, which makes it valid; delete older ones.

    Parameters
    ----------
    checkpoints : Checkpoints
    state : dict
        Tensors on any device, numbers, text, and dicts and lists of them; the file has the tensors on the CPU.
    step : int
    keep : int
        Number of the newest checkpoints to keep, besides the best one.
    best_score : float, optional
        The validation score, if this checkpoint is the best so far.
    """
    path = checkpoints.path_of(step)
    stream = io.BytesIO()  # torch turns an OSError of a full disk into another error, so we write the file ourselves
    torch.save(tree_map_only(Tensor, Tensor.cpu, state), stream)  # a machine without a GPU can load tensors on the CPU
    write_checked(path, stream.getbuffer())
    checkpoints.forget_checks()
    if best_score is not None:
        checkpoints.record_best(step, best_score)
    checkpoints.prune(keep, step)
    return path


def load_checkpoint(path: Path) -> dict:
    """Return the state of a checkpoint; raise `InputError` if the file is damaged, or not a checkpoint."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch compresses nothing; a compressed file could swell
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise pickle.UnpicklingError("it is compressed")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways inside zipfile and torch
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be loaded ({reason}); delete it") from None
    wrong = [key for key, kind in TYPES.items()
             if not isinstance(state, dict) or not isinstance(state.get(key, ()), kind)
             or kind is int and not 0 <= state[key] < 2**62]
    wrong += [key for key, kind in LATER_TYPES.items() if not wrong and not isinstance(state.get(key, kind()), kind)]
    if wrong:
        raise InputError(f"{path}: is not a checkpoint of this program; missing or invalid: {', '.join(wrong)}; "
                         "delete it")
    return state


def load_weights(network: nn.Module, weights: Mapping[str, Any], where: str) -> None:
    """Load a state dict into a network; if it does not fit, raise an `InputError` that says why."""
    adopt_lengths(network, weights)
    own = network.state_dict()
    faults = [f"lacks {name}" for name in own if name not in weights]
    faults += [f"has unknown {name}" for name in weights if name not in own]
    for name in own:
        found = weights.get(name)
        if name in weights and not isinstance(found, Tensor):
            faults.append(f"{name} is not a tensor")
        elif name in weights and found.shape != own[name].shape:
            faults.append(f"{name} is {tuple(found.shape)}, not {tuple(own[name].shape)}")
        elif name in weights and not found.isfinite().all():
            faults.append(f"{name} has values that are not finite")
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(f"{where}: is a checkpoint of another network, or damaged: {'; '.join(faults[:3])}{more}; "
                         "check [model] or choose another run folder")
    network.load_state_dict(weights)
