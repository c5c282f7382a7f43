"""Checkpoints: all that is needed to continue a run. Each appears whole, with its checksum, and loads without code."""

from __future__ import annotations

import io
import pickle
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from hpc_vsr.errors import InputError
from hpc_vsr.files import checksum_path, is_valid, partial_path, read_sealed, sha256, write_checked, write_sealed

BEST = "best.json"
TYPES = {"model_settings": dict, "data_terms": dict, "weights": dict, "network": dict, "optimiser": dict,
         "scaler": dict, "rng": Tensor, "step": int, "samples_seen": int, "best_psnr": (float, int, type(None)),
         "best_step": int, "bad_steps": int}


def save_checkpoint(folder: Path, state: dict, step: int, keep: int, best_score: float | None) -> Path:
    """Write ``step-00001000.pt`` and then ``step-00001000.pt.sha256``, which makes it valid; prune older ones.

    Parameters
    ----------
    folder : Path
    state : dict
        Tensors of any device, numbers, text, and dicts and lists of them; the file has the tensors on the CPU.
    step : int
    keep : int
        How many of the newest stay, besides the best one.
    best_score : float, optional
        The validation score if this is the best checkpoint so far.
    """
    path = _path_of(folder, step)
    stream = io.BytesIO()  # a full disk then is an OSError of ours, not whatever torch makes of it
    torch.save(tree_map_only(Tensor, Tensor.cpu, state), stream)  # `torch.load` then works on machines without a GPU
    write_checked(path, stream.getbuffer())
    if best_score is not None:
        write_sealed(folder / BEST, {"file": path.name, "step": step, "psnr": best_score})
    prune(folder, keep, step)
    return path


def record_best(folder: Path, step: int, score: float) -> None:
    """Name the best checkpoint, if it is there and another one, or none, is named."""
    best = _path_of(folder, step)
    if is_valid(best) and _best_path(folder) != best:
        write_sealed(folder / BEST, {"file": best.name, "step": step, "psnr": score})


def newest_valid(folder: Path) -> Path | None:
    """The newest checkpoint that is valid; None if there is none."""
    return next((path for path in reversed(_list(folder)) if is_valid(path)), None)


def list_damaged(folder: Path) -> list[Path]:
    """Checkpoints newer than the newest valid one, which a resumed training passes over."""
    damaged = []
    for path in reversed(_list(folder)):
        if is_valid(path):
            break
        damaged.append(path)
    return damaged


def load_checkpoint(path: Path) -> dict:
    """State of a checkpoint; nothing in it is run. `InputError` if it was not written by this program."""
    try:
        with zipfile.ZipFile(path) as archive:  # as torch writes it: nothing in it is packed, so nothing can swell
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise pickle.UnpicklingError("it is packed")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways inside zipfile and torch
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be loaded ({reason}); delete it") from None
    wrong = [key for key, kind in TYPES.items()
             if not isinstance(state, dict) or not isinstance(state.get(key, ()), kind)
             or kind is int and not 0 <= state[key] < 2**62]
    if wrong:
        raise InputError(f"{path}: is not a checkpoint of this program: its {', '.join(wrong)} are missing or wrong")
    return state


def find_best(folder: Path) -> Path:
    """The checkpoint with the best validation score, else, with a warning, the newest; `InputError` if none is valid.

    Where best.json is lost or damaged, the newest checkpoint knows which was the best.
    """
    newest = newest_valid(folder)
    if newest is None:
        raise InputError(f"{folder}: has no valid checkpoint; train it first with 'python -m hpc_vsr.train'")
    best = _best_path(folder) or _best_known_to(newest)
    if best == newest or is_valid(best):
        return best
    print(f"warning: {best}: is damaged or lost; {newest.name}, the newest, is taken for the best", file=sys.stderr)
    return newest


def _best_known_to(path: Path) -> Path:
    state = load_checkpoint(path)
    return path if state["best_psnr"] is None else _path_of(path.parent, state["best_step"])


def best_sha256(folder: Path) -> str:
    """SHA-256 of the checkpoint that `find_best` chooses."""
    return sha256(find_best(folder))


def load_weights(network: nn.Module, weights: Mapping[str, Any], where: str) -> None:
    """Load a state dict; `InputError` lists what does not fit if it is of another network."""
    own = network.state_dict()
    faults = [f"lacks {name}" for name in own if name not in weights]
    faults += [f"has unknown {name}" for name in weights if name not in own]
    for name in own:
        found = weights.get(name)
        if name in weights and not isinstance(found, Tensor):
            faults.append(f"{name} is no tensor")
        elif name in weights and found.shape != own[name].shape:
            faults.append(f"{name} is {tuple(found.shape)} where {tuple(own[name].shape)} is wanted")
        elif name in weights and not found.isfinite().all():
            faults.append(f"{name} has values that are not finite")
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise InputError(f"{where}: is a checkpoint of another network, or damaged: {'; '.join(faults[:3])}{more}; "
                         "check [model] or choose another run folder")
    network.load_state_dict(weights)


def _path_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.pt"


def _list(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*.pt") if re.fullmatch(r"step-\d+\.pt", path.name))


def _best_path(folder: Path) -> Path | None:
    try:
        name = str(read_sealed(folder / BEST, "").get("file"))
    except InputError:
        return None
    return folder / name if re.fullmatch(r"step-\d+\.pt", name) else None


def prune(folder: Path, keep: int, step: int) -> None:
    """Delete all but the newest `keep` checkpoints up to `step`, which is valid, and the best one.

    What is there of later steps was damaged when training went on from an earlier one.
    """
    paths = _list(folder)
    valid = [path for path in paths if path <= _path_of(folder, step) and checksum_path(path).exists()]
    stay = {*valid[-max(1, keep):], _best_path(folder)}
    for path in paths:
        if path not in stay:
            checksum_path(path).unlink(missing_ok=True)
            path.unlink()
    for path in folder.glob(partial_path(Path("*")).name):  # of a life that was killed
        path.unlink(missing_ok=True)
