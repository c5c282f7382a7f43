"""Chooses the precision of a run when it begins. The run records it and keeps it when it is resumed."""

from __future__ import annotations

import dataclasses

import torch

from hpc_vsr.data.manifest import Manifest
from hpc_vsr.experiment.finished import has_finished, read_begun
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.models.precision import choose_precision, warn_of_bf16, warn_of_other_device
from hpc_vsr.models.settings import Choice
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import DataTerms
from hpc_vsr.system.config import from_dict

LARGEST_PART = 96


def settle_precision(experiment: Experiment, manifest: Manifest, device: torch.device
                     ) -> tuple[Experiment, Choice, list[str]]:
    """Choose the precision in which an experiment is trained on this device.

    Returns
    -------
    experiment : Experiment
        The experiment with that precision in place of "auto".
    choice : Choice
        The choice that the run records; for a resumed run, the choice of its first life.
    lines : list of str
        Lines to print: the choice with its reason, and warnings.

    Raises
    ------
    InputError
        If the device cannot compute in the precision that the settings ask for, or in that of the begun run.
    """
    asked, channels, run_folder = experiment.train.precision, len(manifest.channels), RunFolder(experiment.out)
    # a finished run computes nothing, so its precision needs no check
    begun = _read_choice(run_folder)
    if begun is not None and has_finished(run_folder, experiment):
        return _with_precision(experiment, begun), begun, []
    network = DataTerms.of(manifest, noise=1e-3).build(experiment.model)
    side = _sample_side(experiment, manifest)
    here = choose_precision(asked, network, channels, device, side, where="train.precision")
    # a run that was begun keeps its precision, unless the user asks for another one
    warnings = []
    if begun is not None and asked in ("auto", begun.precision):
        line = f"precision {begun.precision}: the run was begun in it"
        warnings.append(warn_of_other_device(begun, here, device, str(experiment.out)))
    else:
        begun, line = here, str(here)
    if asked != "auto":
        warnings.append(warn_of_bf16(here, network, channels, device, side))
    return _with_precision(experiment, begun), begun, [line, *filter(None, warnings)]


def _sample_side(experiment: Experiment, manifest: Manifest) -> int:
    """Return the side, in LR pixels, of the samples to measure with: a patch, or a part of a whole frame."""
    return experiment.train.patch_size or min(*manifest.lr_sizes[0], LARGEST_PART)


def _with_precision(experiment: Experiment, choice: Choice) -> Experiment:
    settings = dataclasses.replace(experiment.train, precision=choice.precision)
    return dataclasses.replace(experiment, train=settings)


def _read_choice(run_folder: RunFolder) -> Choice | None:
    """Return the choice that the run in this folder has recorded, or None if it has no checkpoint."""
    config = read_begun(run_folder)
    if config is None or config["train"] is None:
        return None
    chosen = config.get("chosen")  # runs of earlier versions have no record
    return from_dict(Choice, chosen, str(run_folder.config)) if chosen else Choice(config["train"]["precision"],
                                                                                  "as asked for", "another machine")
