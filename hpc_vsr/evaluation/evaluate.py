"""Measures a run's network and the baselines on a split, and writes the figures into the run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hpc_vsr.data.clips import Clips
from hpc_vsr.data.manifest import Manifest, check_shards
from hpc_vsr.evaluation.baselines import tune_on
from hpc_vsr.evaluation.measure import Pictures, measure_flow, measure_split
from hpc_vsr.evaluation.measure_calibration import measure_calibration
from hpc_vsr.evaluation.methods import BASELINE, Method, applied_twice, baselines, network_methods
from hpc_vsr.evaluation.record import DatasetSummary, Evaluation, Row, read_evaluation
from hpc_vsr.evaluation.scores import list_parts
from hpc_vsr.experiment.settings import EvaluateSettings
from hpc_vsr.models.precision import choose_precision, warn_of_bf16
from hpc_vsr.runs.error_head import load_error
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.trained import Trained, load_trained, match_variables
from hpc_vsr.system.config import ABSENT, as_dict
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import sha256, write_sealed, write_whole
from hpc_vsr.system.gpus import choose_device, own_device
from hpc_vsr.system.lock import only_writer, remove_left
from hpc_vsr.system.memory import keep_freed_memory

LOCK = ".evaluate.lock"


class Baselines(dict):
    """What the baselines have made of a data set: several runs that are measured one after the other share it."""


def evaluate(run: RunFolder, manifest: Manifest, settings: EvaluateSettings, shared: Baselines | None = None
             ) -> Evaluation:
    """Measure bicubic, Wiener and the network of `run`, and write the result into its folder.

    A run can be measured while it trains, but two processes cannot measure it at the same time. Runs that `shared` is
    given for measure the baselines only once.

    Raises
    ------
    InputError
        If the run has no valid checkpoint, or its network does not fit the data set.
    """
    run.read_config()
    with only_writer(run.path, LOCK):
        return _evaluate(run, manifest, settings, Baselines() if shared is None else shared)


def _evaluate(run: RunFolder, manifest: Manifest, settings: EvaluateSettings, shared: Baselines) -> Evaluation:
    keep_freed_memory()
    run.check_name()
    # check the weights and the data before anything is computed
    trained = load_trained(run)
    check_suits(trained, manifest)
    trained = _for_blur(trained, manifest.degradation.blur_sigma)
    check_shards(manifest, {settings.split, "val"})
    device = own_device(choose_device(settings.device))
    # choose what is compared: the baselines, the network and its variants
    key = (manifest.fingerprint, settings.split, settings.pictures, device)
    noise, known_rows, known_pictures = shared.get(key) or (tune_on(manifest), [], {})
    precision = _choose_precision(trained, manifest, settings, device)

    def methods_of(clip: Manifest) -> list[Method]:
        return [*(baselines(clip, noise, device) if not known_rows else []),
                *network_methods(run.name, trained, clip, precision, device, settings.self_ensemble,
                                 settings.back_projection, settings.first_stage),
                *([] if settings.twice is None else [applied_twice(RunFolder(settings.twice), clip, precision,
                                                                   device)])]

    if settings.first_stage and not trained.network.core.has_first_stage:
        print(f"evaluate.first_stage: {trained.settings.name} has no 2D part, so there is no row for it",
              file=sys.stderr)
    # measure, and write the pictures before the figures, which make the evaluation complete
    clips = Clips(manifest, settings.split)
    rows, pictures = measure_split(clips, methods_of, settings.pictures, device)
    if not known_rows:
        shared[key] = (noise, [row for row in rows if row.model == BASELINE],
                       {row.method: pictures[row.method] for row in rows if row.model == BASELINE})
    rows = _in_order([*known_rows, *rows], clips, manifest)
    pictures = {**pictures, **known_pictures, "methods": list(dict.fromkeys(row.method for row in rows))}
    flow = measure_flow(trained.network, clips, device) if trained.network.has_flow else ABSENT
    evaluation = Evaluation(
        run=run.name, split=settings.split, dataset=DatasetSummary.of(manifest), step=trained.step,
        precision=precision, device=device.type, wiener_noise=noise, trained_on=trained.terms.fingerprint,
        checkpoint_sha256=trained.sha256, twice_sha256=_sha256_of_twice(settings), settings=settings, rows=rows,
        flow=flow, **_calibration(run, trained, clips, device))
    _print_if_replaced(run.evaluation(settings.split), manifest)
    with write_whole(run.pictures(settings.split)) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **_as_arrays(pictures))
    write_sealed(run.evaluation(settings.split), as_dict(evaluation))
    return evaluation


def _calibration(run: RunFolder, trained: Trained, clips: Clips, device: torch.device) -> dict[str, Any]:
    """Return how well the run predicts its error, for the record; nothing if it was not calibrated.

    On the validation split nothing is measured, because the head has learned there.
    """
    if not run.error_head.exists():
        return {}
    found: dict[str, Any] = {"error_sha256": sha256(run.error_head)}
    if clips.splits[0].name == "val":
        return found
    try:
        found["calibrations"] = measure_calibration(load_error(run, trained), clips, device)
    except InputError as reason:  # such as of a training that went on
        print(f"warning: {reason}", file=sys.stderr)
    return found


def _in_order(rows: list[Row], clips: Clips, manifest: Manifest) -> list[Row]:
    """Sort rows: those of all frames first, then clip by clip; in each part the baselines come first."""
    order = {(part.profile, manifest.channels[part.channel] if part.profile == "field" and manifest.has_variables
              else ABSENT): place for place, part in enumerate(list_parts(manifest))}
    places = {name: place for place, name in enumerate([ABSENT, *(clips.names if clips.is_collection else [])])}
    return sorted(rows, key=lambda row: (places[row.clip], order[row.profile, row.variable]))


def _as_arrays(pictures: Pictures) -> dict[str, np.ndarray]:
    """Return the arrays of pictures-SPLIT.npz.

    Pictures are stacked; those of a collection, whose sizes may differ, are arrays of their own, NAME/0, NAME/1, ...
    """
    texts = ("frame", "clip", "methods")
    arrays = {name: np.array(pictures[name]) for name in texts if name in pictures}
    for name, shown in pictures.items():
        if name not in texts:
            arrays |= {f"{name}/{index}": picture for index, picture in enumerate(shown)} if "clip" in pictures else {
                name: np.stack(shown)}
    return arrays


def _choose_precision(trained: Trained, manifest: Manifest, settings: EvaluateSettings, device: torch.device) -> str:
    """Return the precision of the evaluation, and print it with its reason to standard error."""
    network, channels = trained.network, len(manifest.channels)
    choice = choose_precision(settings.precision, network, channels, device,
                              rounding_shows=not manifest.is_8bit and network.skip is None, where="evaluate.precision")
    print(choice, file=sys.stderr)
    warning = warn_of_bf16(choice, network, channels, device) if settings.precision != "auto" else ""
    if warning:
        print(warning, file=sys.stderr)
    return choice.precision


def evaluate_if_needed(run: RunFolder, manifest: Manifest, settings: EvaluateSettings, shared: Baselines | None = None
                       ) -> None:
    """Call `evaluate`, unless these weights were already measured with these settings on this data set."""
    with contextlib.suppress(InputError):
        found = read_evaluation(run.evaluation(settings.split), "")
        # a CPU's figures are a GPU's to their last digits
        if (found.run == run.name and dataclasses.replace(found.settings, device=settings.device) == settings
                and found.checkpoint_sha256 == run.checkpoints.best_sha256()
                and found.twice_sha256 == _sha256_of_twice(settings)
                and found.error_sha256 == _sha256_of_error(run)
                and found.dataset.fingerprint == manifest.fingerprint and run.pictures(settings.split).exists()):
            print(f"{run.path}: already measured", file=sys.stderr)
            remove_left(run.path, LOCK)
            return
    evaluate(run, manifest, settings, shared)


def _sha256_of_error(run: RunFolder) -> Any:
    return sha256(run.error_head) if run.error_head.exists() else ABSENT


def _sha256_of_twice(settings: EvaluateSettings) -> str | None:
    return None if settings.twice is None else RunFolder(settings.twice).checkpoints.best_sha256()


def _print_if_replaced(path: Path, manifest: Manifest) -> None:
    """Print that this evaluation replaces one on another data set, because a run keeps one per split."""
    with contextlib.suppress(InputError):
        before = read_evaluation(path, "").dataset
        if before.fingerprint != manifest.fingerprint:
            print(f"{path}: replaces the evaluation on {before.name}", file=sys.stderr)


def _for_blur(trained: Trained, sigma: float) -> Trained:
    """Return a network of a range of blurs with the filters for that of the data; warn if it is for another blur."""
    if trained.terms.sigma == sigma:
        return trained
    low, high = trained.terms.blur_range
    if low < high:
        return trained.at(sigma)
    print(f"warning: {trained.where}: was trained for a blur of {trained.terms.sigma:g} pixels, and the data set has "
          f"{sigma:g}", file=sys.stderr)
    return trained


def check_suits(trained: Trained, manifest: Manifest) -> None:
    """Raise `InputError` unless the network fits the data set."""
    terms = trained.terms
    if terms.has_variables or manifest.has_variables:
        warning = match_variables(terms, manifest.channels, trained.where, str(manifest.folder))
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
    if (terms.channels, terms.scale) != (len(manifest.channels), manifest.scale):
        raise InputError(f"{trained.where}: was trained for {terms.channels} channels at scale {terms.scale}, but "
                         f"{manifest.folder} has {len(manifest.channels)} at scale {manifest.scale}")
    if terms.for_video != manifest.is_grey:
        kinds = ("grey levels of a video or images", "values of a field")
        trained_for, found = kinds if not manifest.is_grey else kinds[::-1]
        raise InputError(f"{trained.where}: was trained for {trained_for}, but {manifest.folder} has {found}")
