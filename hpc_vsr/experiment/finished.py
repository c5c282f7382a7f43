"""Tells whether a run folder holds a given experiment, and whether that is trained to its last step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpc_vsr.data.manifest import Manifest, read_manifest
from hpc_vsr.experiment.settings import Experiment, TrainSettings
from hpc_vsr.models.settings import Choice, ModelSettings
from hpc_vsr.runs.checkpoints import read_facts
from hpc_vsr.runs.folder import RunFolder
from hpc_vsr.runs.start import KEY, Start
from hpc_vsr.system import files
from hpc_vsr.system.config import as_dict, from_dict
from hpc_vsr.system.errors import InputError

# Settings that may change when a run is resumed, because they do not change what is learned.
NEUTRAL = ("keep_checkpoints", "log_every", "num_workers", "resident", "device", "deterministic",
           "checkpoint_every", "micro_batches", "verify_shards", "tensorboard")
FROM = "train.from"


def open_run_folder(run_folder: RunFolder, experiment: Experiment, manifest: Manifest, choice: Choice,
                    start: Start | None = None) -> dict[str, Any]:
    """Write config.json before any work; raise `InputError` if the folder holds a run with other settings or data.

    A folder without a checkpoint has nothing to lose and accepts any settings.

    Parameters
    ----------
    choice : Choice
        The choice of the precision.
    start : Start, optional
        Where a run starts that is fine-tuned; a run that was begun keeps what it has recorded.

    Returns
    -------
    dict
        What config.json has besides the data set and the choice; each checkpoint has it too.
    """
    run_folder.check_name()
    begun = read_begun(run_folder)
    own = {**as_dict(experiment), **({KEY: as_dict(start)} if start else {})}
    if begun is not None and KEY in begun:
        own[KEY] = begun[KEY]
    wanted = {**own, "data_fingerprint": manifest.fingerprint, "chosen": as_dict(choice)}
    if begun is not None:
        check_same_settings(run_folder, experiment)
        if begun["data_fingerprint"] != manifest.fingerprint:
            grown = (f"; if clips were added since, fine-tune with --from {run_folder.path}" if manifest.is_collection
                     else "")
            raise InputError(f"{run_folder.path}: was trained on another data set than {manifest.folder}; "
                             f"choose another --out or give the data set it was trained on{grown}")
    elif not run_folder.config.exists() and any(not path.name.startswith(".") for path in run_folder.path.iterdir()):
        raise InputError(f"{run_folder.path}: is not empty and holds no run; move it away, or "
                         "choose another --out")
    files.write_sealed(run_folder.config, wanted)
    return own


def check_same_settings(run_folder: RunFolder, experiment: Experiment) -> None:
    """Raise `InputError` if the folder holds a run with a checkpoint and other settings."""
    begun = read_begun(run_folder)
    start = None if begun is None or begun["train"] is None else begun["train"].get("from")
    if start and experiment.train.from_ is None:
        raise InputError(f"{run_folder.path}: was begun with --from {start}; give it again to continue, or choose "
                         "another --out")
    differing = [] if begun is None else differing_settings(begun, experiment)
    if differing:
        raise InputError(f"{run_folder.path}: holds a run with other settings: {'; '.join(differing[:4])}; "
                         "choose another --out or delete that folder")


def differing_settings(config: dict[str, Any], experiment: Experiment) -> list[str]:
    """Return in which settings an experiment differs from the configuration of a run: 'train.lr is 0.1 there, ...'."""
    found = decisive_settings(config)
    return _differences(found, _as_begun(decisive_settings(as_dict(experiment)), found))


def read_begun(run_folder: RunFolder) -> dict[str, Any] | None:
    """Return the configuration of a run that has a checkpoint; None for a run without one.

    If config.json is damaged or missing, the newest checkpoint has the configuration.
    """
    newest = run_folder.checkpoints.newest()
    if newest is None:
        return None
    try:
        return run_folder.read_config()
    except InputError:
        state = read_facts(newest)
        if "config" not in state:  # an imported run
            raise
        return {**state["config"], "data_fingerprint": state["data_terms"]["fingerprint"]}


def has_finished(run_folder: RunFolder, experiment: Experiment) -> bool:
    """Return whether the run folder holds this experiment, trained to its last step on the present data set."""
    newest = run_folder.checkpoints.newest()
    if experiment.impossible or newest is None or run_folder.checkpoints.step_of(newest) < experiment.train.steps:
        return False
    try:
        if read_facts(newest).get("validation_due"):
            return False
        config = run_folder.read_config()
    except InputError:  # a damaged file, which the training reports
        return False
    return (not differing_settings(config, experiment)
            and config["data_fingerprint"] == read_manifest(experiment.data).fingerprint)


def decisive_settings(config: dict) -> dict[str, Any]:
    """Return the settings that decide what is learned, as {section.key: value}.

    `config` is the configuration of a run, or an experiment as a dict. Settings that an older run does not have get
    their defaults.
    """
    if config["train"] is None:
        return {"imported": config.get("imported")}
    sections = {"model": as_dict(from_dict(ModelSettings, config["model"], "model")),
                "train": as_dict(from_dict(TrainSettings, config["train"], "train"))}
    return {f"{section}.{key}": value for section, settings in sections.items() for key, value in settings.items()
            if not (section == "train" and key in NEUTRAL)}


def _as_begun(wanted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the wanted settings, of which two may be spelt in another way than those of the run that was begun.

    The precision auto is the one in which the run was begun, and a path to the run that it started from may be another.
    """
    as_found = set()
    if wanted.get("train.precision") == "auto":
        as_found.add("train.precision")
    if wanted.get(FROM) and found.get(FROM) and Path(wanted[FROM]).resolve() == Path(found[FROM]).resolve():
        as_found.add(FROM)
    return {key: found.get(key, value) if key in as_found else value for key, value in wanted.items()}


def _differences(found: dict, wanted: dict) -> list[str]:
    return [f"{key} is {found.get(key)!r} there, {wanted.get(key)!r} now"
            for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)]
