"""Imports the weights that the authors of the paper published, as a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.evaluation.weight_files import output_range, read_state_dict
from hpc_vsr.experiment.settings import EvaluateSettings
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.state import load_checkpoint, save_checkpoint
from hpc_vsr.runs.trained import DataTerms, network_state
from hpc_vsr.system import files
from hpc_vsr.system.config import as_dict
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.lock import only_writer

SIGMA, SCALE = 3.0, 2  # the paper's degradation
UNUSED = ("twodConvBlock12.0", "twodConvBlock12.2", "twodConvBlock22.0", "twodConvBlock22.2", "twodConvBlock52.0",
          "twodConvBlock52.2", "output2dlayer2")  # in the published files, but not used by the network


def published_names() -> dict[str, str]:
    """Return {layer of `Parallel5`: layer in the published files}; each has a ``weight`` and a ``bias``."""
    names = {"last": "output2dlayer"}
    for stream in range(5):
        number = stream + 1
        names[f"heads.{stream}.0"] = f"first2dConv{number}"
        names[f"heads.{stream}.2"] = f"twodConvBlock{number}1.1"
        names.update({f"enlarge.{stream}.{layer}": f"twodConvBlock{number}3.{layer + 1}" for layer in (0, 2, 4)})
    for block, stream in enumerate((2, 3)):
        names.update({f"blocks.{block}.block.{layer}": f"twodConvBlock{stream + 1}2.{layer}" for layer in (0, 2)})
    for part, number in (("enter_3d", 1), ("block_3d_a.block", 2), ("between", 3), ("block_3d_b.block", 4)):
        names.update({f"{part}.{layer}": f"threedConvBlock{number}.{layer}" for layer in (0, 2)})
    for layer in (0, 2, 4):
        names[f"after.{layer}"] = f"threedConvBlock5.{layer + 1}"
        names[f"leave_3d.{layer}"] = f"threedConvBlock5.{layer + 7}"
    return names


def convert_weights(published: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Convert the weights in a published file to those of a `Network` around `Parallel5`.

    Parameters
    ----------
    published : mapping
        State dict with the authors' names, with or without DataParallel's "module." before them.
    own : mapping
        State dict of the network, for names and shapes.
    where : str
        Name of the file, for errors.

    Raises
    ------
    InputError
        If a name is missing, unknown, or has another shape; the message lists them.
    """
    published = {name.removeprefix("module."): value for name, value in published.items()}
    wanted = {f"core.{layer}.{kind}": f"{name}.{kind}" for layer, name in published_names().items()
              for kind in ("weight", "bias")}
    unused = {f"{name}.{kind}" for name in UNUSED for kind in ("weight", "bias")}
    missing = sorted(name for name in wanted.values() if name not in published)
    unknown = sorted(set(published) - set(wanted.values()) - unused)
    shaped = sorted(f"{theirs} is {tuple(published[theirs].shape)} instead of {tuple(own[ours].shape)}"
                    for ours, theirs in wanted.items()
                    if theirs in published and published[theirs].shape != own[ours].shape)
    faults = [f"{kind} {len(names)}: {', '.join(names[:4])}{', ...' * (len(names) > 4)}"
              for kind, names in (("missing", missing), ("unknown", unknown), ("of another shape", shaped)) if names]
    if faults:
        raise InputError(f"{where}: does not hold the published weights of 5-parallel; {'; '.join(faults)}")
    return {ours: published[theirs].float().contiguous() for ours, theirs in wanted.items()}


def import_weights(path: Path, out: Path, data: Path | None, asked_range: Sequence[float] | None
                   ) -> tuple[RunFolder, str]:
    """Write a run folder with the published weights in `path`; return it, and a sentence about its output range.

    Without `asked_range` the range is that of the authors' file with this checksum, or the usual one. Raises
    `InputError` if the folder holds another run.
    """
    # the network and its weights, as the authors trained them
    published = read_state_dict(path)
    origin = {"file": path.name, "sha256": files.sha256(path)}
    limits, told = output_range(origin["sha256"], asked_range)
    settings = ModelSettings(name="parallel5", value_range=255.0, output_range=list(limits), init="torch",
                             features_2d=_features_2d(published))
    terms = DataTerms(channels=1, scale=SCALE, sigma=SIGMA, noise=0.0, offset=0.0, extent=255.0,
                      fingerprint="published", is_video=True)
    weights = convert_weights(published, terms.build(settings).state_dict(), str(path))
    run = RunFolder(out)
    run.check_name()
    if data is not None:
        _check_data(data)
    # the folder must be empty or hold the same import; a damaged config is written anew
    try:
        config = run.read_config() if run.config.exists() else {}
    except InputError:  # damaged or of an earlier version
        if not _holds_weights(run, weights):
            raise
        config = {}
    if config and config.get("imported") != origin:
        raise InputError(f"{out}: holds another run; choose another --out or delete that folder")
    if data is None and config.get("data") is not None:
        data = Path(config["data"])
    if out.is_dir() and not run.config.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty but holds no run; choose another --out")
    files.create_folder(out)
    # write the run
    with only_writer(out):
        files.write_sealed(run.config, {
            "data": str(data) if data else None, "out": str(out), "model": as_dict(settings), "train": None,
            "evaluate": as_dict(EvaluateSettings()), "data_fingerprint": terms.fingerprint, "imported": origin})
        run.checkpoints.folder.mkdir(exist_ok=True)
        save_checkpoint(run.checkpoints, _state(settings, terms, weights), 0, keep=1, best_score=None)
    return run, told


def _features_2d(published: Mapping[str, Tensor]) -> int:
    """Return the number of feature maps of the 2D part; the usual one if the weights do not say."""
    names = (f"{before}twodConvBlock11.1.weight" for before in ("", "module."))
    shape = next((published[name].shape for name in names if name in published), ())
    return shape[0] if len(shape) == 4 and 1 <= shape[0] <= 1024 else ModelSettings().features_2d


def _holds_weights(run: RunFolder, weights: dict[str, Tensor]) -> bool:
    """Check whether the newest checkpoint of a run has these weights."""
    path = run.checkpoints.newest()
    found = load_checkpoint(path)["weights"] if path else {}
    return found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)


def _check_data(data: Path) -> None:
    """Raise `InputError` unless these weights can be measured on the data set."""
    manifest = read_manifest(data)
    if (manifest.scale, len(manifest.channels), manifest.is_grey) != (SCALE, 1, True):
        raise InputError(f"{data}: has {len(manifest.channels)} channels of {manifest.info.dtype} for "
                         f"{manifest.scale} times; these weights are for luma in grey levels and {SCALE} times")


def _state(settings: ModelSettings, terms: DataTerms, weights: dict) -> dict[str, Any]:
    """Return a checkpoint that can be used but not continued."""
    return {**network_state(settings, terms, weights), "network": weights, "optimiser": {}, "scaler": {},
            "rng": torch.get_rng_state(), "step": 0, "samples_seen": 0, "best_psnr": None, "best_step": 0,
            "bad_steps": 0}
