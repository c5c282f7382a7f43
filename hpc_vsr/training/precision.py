"""The precision of a run: chosen when the run begins, recorded in it, and kept when it is resumed."""

from __future__ import annotations

import dataclasses

import torch

from hpc_vsr.data.manifest import Manifest
from hpc_vsr.experiment.finished import has_finished, read_begun
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.models.precision import choose_precision, go_on, warn_of_bf16
from hpc_vsr.models.settings import Choice
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import DataTerms
from hpc_vsr.system.config import from_dict

LARGEST_PART = 96


def settle_precision(experiment: Experiment, manifest: Manifest, device: torch.device
                     ) -> tuple[Experiment, Choice, list[str]]:
    """Decide in which precision an experiment is trained on this device.

    Returns
    -------
    experiment : Experiment
        The experiment with that precision in place of "auto".
    choice : Choice
        The choice that the run records; for a resumed run, that of its first life.
    lines : list of str
        Lines to print: the choice, its reason, and warnings.

    Raises
    ------
    InputError
        If the device cannot compute in the precision that is asked for, or in which the run was begun.
    """
    asked, channels, run_folder = experiment.train.precision, len(manifest.channels), RunFolder(experiment.out)
    # a finished run computes nothing any more, so its precision needs no check
    begun = _read_choice(run_folder)
    if begun is not None and has_finished(run_folder, experiment):
        return _in_precision(experiment, begun), begun, []
    network = DataTerms.of(manifest, noise=1e-3).build(experiment.model)
    here = choose_precision(asked, network, channels, device, _side(experiment, manifest), where="train.precision")
    # a run that was begun keeps its precision, unless the user asks for another one
    warnings = []
    if begun is not None and asked in ("auto", begun.precision):
        told = f"precision {begun.precision}: the run was begun in it"
        warnings.append(go_on(begun, here, device, str(experiment.out)))
    else:
        begun, told = here, str(here)
    if asked != "auto":
        warnings.append(warn_of_bf16(here, network, channels, device, _side(experiment, manifest)))
    return _in_precision(experiment, begun), begun, [told, *filter(None, warnings)]


def _side(experiment: Experiment, manifest: Manifest) -> int:
    """Return the side, in LR pixels, of the samples to measure with: the patch, or a small part of whole frames."""
    return experiment.train.patch_size or min(*manifest.lr_size, LARGEST_PART)


def _in_precision(experiment: Experiment, choice: Choice) -> Experiment:
    settings = dataclasses.replace(experiment.train, precision=choice.precision)
    return dataclasses.replace(experiment, train=settings)


def _read_choice(run_folder: RunFolder) -> Choice | None:
    """Return the choice that the run in this folder has recorded; None if it has no checkpoint."""
    config = read_begun(run_folder)
    if config is None or config["train"] is None:
        return None
    chosen = config.get("chosen")  # runs of earlier versions have no record
    return from_dict(Choice, chosen, str(run_folder.config)) if chosen else Choice(config["train"]["precision"],
                                                                                  "as asked for", "another machine")
