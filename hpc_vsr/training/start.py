"""Loads the weights with which a fine-tuned run starts, and says in what its data and settings differ from theirs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from hpc_vsr.data.info import for_channels
from hpc_vsr.data.manifest import Manifest
from hpc_vsr.experiment.finished import read_begun
from hpc_vsr.experiment.progress import FINISHED, read_progress
from hpc_vsr.experiment.settings import Experiment
from hpc_vsr.experiment.start import MAY_DIFFER
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.start import Start, read_start
from hpc_vsr.runs.trained import DataTerms, Trained, load_trained, match_variables
from hpc_vsr.system.config import as_dict
from hpc_vsr.system.errors import InputError

OTHER_NOISE = 2.0  # factor between two noise constants that is worth a line


@dataclass(frozen=True)
class StartWeights:
    """The weights that a run starts with.

    Attributes
    ----------
    start : Start
        Where they come from, for the record of the run.
    weights : dict
        {name: tensor} of the trained weights, on the CPU, without the fixed filters.
    noise : float or list of float
        Noise constants of the fixed filters that they were trained with; 0 without them.
    lines : list of str
        Lines to print: the checkpoint, and in what the data and the settings differ.
    """

    start: Start
    weights: dict[str, Tensor]
    noise: float | list[float]
    lines: list[str]


def load_start(experiment: Experiment, manifest: Manifest) -> StartWeights | None:
    """Return the weights of the run from which an experiment starts: its best validated ones.

    Returns None if it starts with new weights, or has a checkpoint of its own. The fixed filters are left out, because
    they belong to the blur and the noise of the data: a fine-tuned network has those of its own data.

    Raises
    ------
    InputError
        If that folder is not a run, has no valid checkpoint, or has other model settings than the experiment.
    """
    if experiment.train.from_ is None or read_begun(RunFolder(experiment.out)) is not None:
        return None
    run = RunFolder(experiment.train.from_)
    try:
        config, trained = run.read_config(), load_trained(run)
    except InputError as error:
        raise InputError(f"train.from: {error}") from None
    before, settings = as_dict(trained.settings), as_dict(experiment.model)
    changed = [name for name in before if before[name] != settings[name]]
    foreign = [name for name in changed if name not in MAY_DIFFER]
    if foreign:  # it was trained anew since the settings were taken from it
        raise InputError(f"train.from: {run.path}: model.{foreign[0]} is {before[foreign[0]]!r} there by now, and "
                         f"{settings[foreign[0]]!r} here; launch this run again")
    start = Start(run=run.name, file=Path(trained.where).name, step=trained.step, sha256=trained.sha256,
                  data_fingerprint=trained.terms.fingerprint, before=read_start(config, str(run.config)),
                  imported=config.get("imported"))
    kind = "imported" if start.imported else run.checkpoints.rank_of(Path(trained.where))
    lines = [f"starts from {run.path}: {start.file}, its {kind} weights (SHA-256 {start.sha256[:8]}); the optimiser "
             "starts anew", *_tell_unfinished(run),
             *(f"warning: model.{name} is {settings[name]!r}, and {before[name]!r} in {run.path}" for name in changed),
             *compare_terms(trained, DataTerms.of(manifest, 0.0), experiment.model)]
    weights = {name: value.detach() for name, value in trained.network.named_parameters()}
    return StartWeights(start, weights, trained.terms.noise, lines)


def _tell_unfinished(run: RunFolder) -> list[str]:
    progress = read_progress(run)
    return [] if progress.state == FINISHED else [f"warning: {run.path} is not finished: {progress.sentence}"]


def compare_terms(trained: Trained, terms: DataTerms, settings: ModelSettings) -> list[str]:
    """Return a line for each difference between the data of a trained network and those that it is fine-tuned on.

    Raises `InputError` if they have other variables.
    """
    before = trained.terms
    lines = _compare_variables(before, terms, trained.where)
    if before.sigma != terms.sigma:
        filters = "; its fixed Wiener filter is now that of the new blur" if settings.uses_wiener else ""
        lines.append(f"warning: the blur has sigma {terms.sigma:g}, and had {before.sigma:g} in the training of the "
                     f"weights{filters}")
    if before.for_video != terms.for_video:
        kinds = {True: "grey levels of a video or images", False: "values of a field"}
        lines.append(f"warning: the data are {kinds[terms.for_video]}, and the weights were trained on "
                     f"{kinds[before.for_video]}; both are 0..1 to the network")
    elif not terms.for_video and not _are_near(before, terms):
        lines.append(f"warning: 0..1 to the network are {_format_values(terms)} in the data, and were "
                     f"{_format_values(before)} in the training of the weights")
    return lines


def compare_noise(before: float | list[float], noise: float | list[float]) -> list[str]:
    """Return a line if the noise constants of two Wiener filters, one or one for each channel, differ much."""
    then, now = for_channels(before, 1), for_channels(noise, 1)
    if all(old == new or old and new and max(old / new, new / old) < OTHER_NOISE
           for old, new in zip(then, now, strict=True)):
        return []
    texts = [", ".join(f"{one:.2g}" for one in ones) for ones in (now, then)]
    return [f"warning: the noise constant of the fixed Wiener filter is {texts[0]}, tuned on these data, and was "
            f"{texts[1]} in the training of the weights"]


def _compare_variables(before: DataTerms, terms: DataTerms, run: str) -> list[str]:
    """Return a line if the variables have other names; raise `InputError` if they are not those of the weights."""
    if not (before.has_variables or terms.has_variables):
        if not (before.names and terms.names) or before.names == terms.names:
            return []
        return [f"warning: the data are {terms.names[0]}, and the weights were trained on {before.names[0]}; both are "
                "0..1 to the network"]
    if before.has_variables != terms.has_variables:
        kinds = {True: "several variables of a field", False: "colours or one variable"}
        raise InputError(f"train.from: {run}: was trained on {kinds[before.has_variables]}, and the data are "
                         f"{kinds[terms.has_variables]}; train without --from")
    warning = match_variables(before, terms.variables, run, "the data set")
    return [f"warning: {warning}"] if warning else []


def _ranges(terms: DataTerms, subtracted: float | list[float] = 0.0) -> list[tuple[float, float]]:
    """Return the values that are 0 and 1 to the network, for each variable, less what is `subtracted`."""
    offsets = terms.offset_after(subtracted)
    count = terms.channels if terms.has_variables else 1
    return [(low, low + extent) for low, extent in zip(for_channels(offsets, count), for_channels(terms.extent, count),
                                                       strict=True)]


def _are_near(before: DataTerms, terms: DataTerms) -> bool:
    """Return whether the normalisations of two fields differ by less than a tenth of the range."""
    common = before.was_subtracted
    pairs = zip(_ranges(before, common), _ranges(terms, common), strict=True)
    return all(max(abs(low - old_low), abs(high - old_high)) < 0.1 * (old_high - old_low)
               for (old_low, old_high), (low, high) in pairs)


def _format_values(terms: DataTerms) -> str:
    return ", ".join(f"{low:.6g} to {high:.6g}" for low, high in _ranges(terms))
