"""Fine-tuning: an experiment that starts from a run takes the model settings of that run, and must suit its data.

The settings are found before anything is trained, from the files alone. Once a fine-tuned run has a checkpoint it has
all that it needs, and the run that it started from may change or be deleted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from hpc_vsr.data.manifest import Manifest
from hpc_vsr.experiment.finished import read_begun
from hpc_vsr.experiment.settings import Experiment, ImpossiblePoint
from hpc_vsr.models.settings import ModelSettings
from hpc_vsr.runs.checkpoints import read_facts
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.system.config import from_dict
from hpc_vsr.system.errors import InputError

# Settings that may differ from those of the weights, which then mean the same: how often shared layers are repeated,
# and where the neighbouring frames are.
MAY_DIFFER = ("align", "n_2d", "n_3d")


def settle_starts(points: Iterable[tuple[Experiment, Collection[str]]]) -> list[Experiment]:
    """Return the experiments with their model settings; one whose start is wrong becomes an `ImpossiblePoint`.

    Parameters
    ----------
    points : iterable of (Experiment, collection of str)
        Each with the names of the settings that are given for it, such as "model.n_2d"; the others are defaults.
    """
    points = list(points)
    if all(experiment.train.from_ is None for experiment, _ in points):
        return [experiment for experiment, _ in points]
    folders = by_folder(experiment for experiment, _ in points)
    settled: dict[Path, Experiment] = {}
    for (experiment, given), folder in zip(points, folders, strict=True):
        try:
            settled[folder] = _settle(experiment, given, folders, settled)
        except InputError as error:
            fields = {field.name: getattr(experiment, field.name) for field in dataclasses.fields(Experiment)}
            settled[folder] = ImpossiblePoint(**fields, impossible=str(error))
    return list(settled.values())


def by_folder(experiments: Iterable[Experiment]) -> dict[Path, Experiment]:
    """Return {run folder: experiment}; the paths are absolute, to be compared."""
    return {experiment.out.resolve(): experiment for experiment in experiments}


def sibling_of(experiment: Experiment, folders: Mapping[Path, Experiment]) -> Experiment | None:
    """Return the experiment, of those of the same job file, that makes the run from which this one starts, if any."""
    start = experiment.train.from_
    return None if start is None else folders.get(start.resolve())


def _settle(experiment: Experiment, given: Collection[str], folders: Mapping[Path, Experiment],
            settled: Mapping[Path, Experiment]) -> Experiment:
    start = experiment.train.from_
    if start is None or experiment.impossible:
        return experiment
    sibling = sibling_of(experiment, folders)
    if sibling is experiment:
        raise InputError(f"train.from: {start} is the folder of this run itself; choose another --out")
    if sibling is not None:
        sibling = settled.get(start.resolve())
        if sibling is None:
            raise InputError(f"train.from: {start} is made by a later [[sweep]] of this file; put that one first")
    names = {name.removeprefix("model.") for name in given if name.startswith("model.")}
    # a run that was begun has its settings; if others are given, training refuses them as for any run
    begun = read_begun(RunFolder(experiment.out))
    if begun is not None:
        model = from_dict(ModelSettings, begun["model"], str(RunFolder(experiment.out).config))
        return _with_given(experiment, model, names)
    model = _model_of(start, sibling)
    for name in sorted(names - set(MAY_DIFFER)):
        wanted, found = getattr(experiment.model, name), getattr(model, name)
        if wanted != found:
            raise InputError(f"model.{name}: is {wanted!r}, and the weights of {start} are for {found!r}; leave it "
                             "out, or train without --from")
    return _with_given(experiment, model, names)


def _model_of(start: Path, sibling: Experiment | None) -> ModelSettings:
    """Return the model settings of a run, which is yet to be trained if `sibling` makes it."""
    if sibling is not None:
        if sibling.impossible:
            raise InputError(f"train.from: {start} cannot be trained: {sibling.impossible}")
        return sibling.model
    run = RunFolder(start)
    try:
        model = from_dict(ModelSettings, run.read_config()["model"], str(run.config))
    except InputError as error:
        raise InputError(f"train.from: {error}") from None
    if run.checkpoints.newest() is None:
        raise InputError(f"train.from: {start}: has no valid checkpoint yet; train it first")
    return model


def _with_given(experiment: Experiment, model: ModelSettings, names: Collection[str]) -> Experiment:
    changed = {name: getattr(experiment.model, name) for name in names}
    return dataclasses.replace(experiment, model=dataclasses.replace(model, **changed))


def check_start(experiment: Experiment, manifest: Manifest) -> None:
    """Raise `InputError` if an experiment is yet to start from a run of another scale or other channels than its data.

    A run that is yet to be trained is not checked.
    """
    start = experiment.train.from_
    if start is None or read_begun(RunFolder(experiment.out)) is not None:
        return
    newest = RunFolder(start).checkpoints.newest()
    terms = {} if newest is None else read_facts(newest).get("data_terms") or {}
    scale, channels = terms.get("scale", manifest.scale), terms.get("channels", len(manifest.channels))
    if scale != manifest.scale:
        raise InputError(f"train.from: {start} enlarges {scale} times, and {manifest.folder} is for {manifest.scale} "
                         f"times; preprocess with --degradation.scale {scale}, or train without --from")
    if channels != len(manifest.channels):
        raise InputError(f"train.from: {start} was trained on {channels} channel{'s' * (channels > 1)}, and "
                         f"{manifest.folder} has {len(manifest.channels)} ({', '.join(manifest.channels)}); preprocess "
                         "the same channels (--channels y or rgb, --variable), or train without --from")
