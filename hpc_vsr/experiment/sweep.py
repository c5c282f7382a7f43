"""Sweeps: job files that stand for many runs, one for each point of a grid.

``[sweep]`` lists settings and their values; the runs are all combinations of them. Several grids, ``[[sweep]]``, are
joined, and a point that is in two of them is one run. The name of a run folder ends with a fingerprint of the run. The
fingerprint finds the run again, so that it is never trained twice. A grid of one run may name its folder instead, with
``out = "NAME"``; as with any run folder, training then refuses other settings in it.

A setting given on the command line is not swept. If some grids list the given value, the grids with only other values
are left out: ``--model.name delta`` leaves the runs of delta.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from hpc_vsr.data.manifest import NAME as MANIFEST
from hpc_vsr.data.manifest import read_manifest
from hpc_vsr.experiment.checks import check_fit
from hpc_vsr.experiment.finished import FROM, NEUTRAL, decisive_settings
from hpc_vsr.experiment.settings import Experiment, ImpossiblePoint
from hpc_vsr.experiment.start import MAY_DIFFER, settle_starts
from hpc_vsr.runs.folder import RESERVED
from hpc_vsr.system.config import as_dict, fingerprint, from_dict
from hpc_vsr.system.errors import InputError

SECTION = "sweep"
SWEPT = ("model", "train")
OUT = "out"
MAX_POINTS = 1000  # the limit of SLURM's arrays


def read_sweep(content: dict[str, Any], path: str, given: Mapping[str, Any] | None = None) -> list[dict[str, list]]:
    """Return the grids of a job file, [{"model.n_2d": [1, 2, 3], ...}, ...]; an empty list if it has no sweep.

    A grid that names the folder of its run has it as {"out": [NAME], ...}.

    Parameters
    ----------
    content : dict
        The TOML file.
    path : str
        Its name, for error messages.
    given : mapping, optional
        {"model.n_2d": 3, ...}: settings that the command line gave; it overrides the file, so these are not swept.

    Raises
    ------
    InputError
        If a key is not a setting of the experiment, its values are not a list, or the runs with names of their own have
        other values than the given one.
    """
    table = content.get(SECTION, [])
    grids = table if isinstance(table, list) else [table]
    for grid in grids:
        if not isinstance(grid, dict) or not grid:
            raise InputError(f"{path}: [{SECTION}] must have settings with lists of values, such as "
                             '"model.n_2d" = [1, 2, 3]')
        for key, values in grid.items():
            if key == OUT and isinstance(values, str):
                _check_name(values, grid, path)
                continue
            if isinstance(values, dict):
                raise InputError(f'{path}: [{SECTION}] {key}: put the whole name in quotes, such as '
                                 f'"{key}.{next(iter(values), "name")}" = [...]')
            if key.split(".")[0] not in SWEPT or key.removeprefix("train.") in NEUTRAL:
                raise InputError(f"{path}: [{SECTION}] {key!r}: cannot be swept; only settings of "
                                 f"{' and '.join(SWEPT)} that change what is learned can")
            if not isinstance(values, list) or not values:
                raise InputError(f"{path}: [{SECTION}] {key!r}: expected a list of values, found {values!r}")
    given = given or {}
    grids = _choose_grids([{**grid, OUT: [grid[OUT]]} if OUT in grid else grid for grid in grids], given, path)
    kept = [{key: values for key, values in grid.items() if key not in given} for grid in grids]
    return [grid for grid in kept if grid]


def expand(experiment: Experiment, grids: list[dict[str, list]], where: str, given: Collection[str] = ()
           ) -> list[Experiment]:
    """Return an experiment for each point of the grids, each with its own run folder; without grids, only itself.

    Parameters
    ----------
    experiment : Experiment
        Its `out` becomes the folder that holds all runs.
    grids : list of dict
        The grids as `read_sweep` returns them; the points keep their order.
    where : str
        The job file, for error messages.
    given : collection of str
        The settings that the file or the command line gives, such as "model.n_2d"; a run that starts from another one
        takes the others of [model] from it.
    """
    if not grids:
        return settle_starts([(experiment, given)])
    found: dict[str, Experiment] = {}
    swept: dict[str, set[str]] = {}
    for grid in grids:
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            name = point.pop(OUT, None)
            changed = _apply_point(experiment, point, where)
            mark = fingerprint(point)[:8] if changed.impossible else _short_fingerprint(changed, {*given, *point})
            if mark not in found:
                # a run that exists keeps its folder, whatever its name is before the fingerprint
                known = [] if name else sorted(experiment.out.glob(f"*-{mark}"))
                out = known[0] if known else experiment.out / (name or f"{_readable_name(point)}-{mark}")
                found[mark], swept[mark] = dataclasses.replace(changed, out=out), {*given, *point}
            if len(found) > MAX_POINTS:
                raise InputError(f"{where}: [{SECTION}] has more than {MAX_POINTS} points, the most of one launch")
    if found and all(run.impossible for run in found.values()):
        raise InputError(next(iter(found.values())).impossible)
    if len({run.out for run in found.values()}) < len(found):
        raise InputError(f"{where}: [{SECTION}] {OUT}: two runs have the same name; give each its own")
    return settle_starts([(run, swept[mark]) for mark, run in found.items()])


def check_all(experiments: list[Experiment], world_size: int, check: Callable[[Experiment], None] | None = None
              ) -> dict[Path, str]:
    """Return {run folder: reason} of the experiments that do not suit their data or the number of ranks.

    Each of them fails by itself. `check` checks an experiment in another way, where there are no data yet.

    Raises
    ------
    InputError
        If none of the experiments can be trained; the message is that of the first.
    """
    refused: dict[Path, str] = {}
    for experiment in experiments:
        try:
            if experiment.impossible:
                raise InputError(experiment.impossible)
            if check is None:
                check_fit(experiment, read_manifest(experiment.data), world_size)
            else:
                check(experiment)
        except InputError as error:
            if not (experiment.data / MANIFEST).exists() and check is None:
                raise
            refused[experiment.out] = str(error)
    if len(refused) == len(experiments):
        raise InputError(next(iter(refused.values())))
    return refused


def choose_point(experiments: list[Experiment], point: int | None, where: str) -> Experiment:
    """Return the experiment of a point; without a point, the only experiment.

    Raises `InputError` if there is no such point, or if there are several experiments and `point` is None.
    """
    if point is None and len(experiments) == 1:
        return experiments[0]
    if point is None:
        raise InputError(f"{where}: has a sweep of {len(experiments)} points; choose one with --point 0 to "
                         f"{len(experiments) - 1}, or train all with 'python -m hpc_vsr.launch'")
    if not 0 <= point < len(experiments):
        raise InputError(f"--point: the sweep of {where} has the points 0 to {len(experiments) - 1}, found {point}")
    return experiments[point]


def _check_name(name: str, grid: dict[str, Any], path: str) -> None:
    """Raise `InputError` if the name of a grid's run cannot be its folder, or the grid has several runs."""
    if not re.fullmatch(r"\w[\w.+-]{0,99}", name) or name in ("report", *RESERVED):
        raise InputError(f"{path}: [{SECTION}] {OUT}: a run cannot be named {name!r}; give letters, digits and "
                         ". _ + -, and no name that reports use")
    several = [key for key, values in grid.items() if isinstance(values, list) and len(values) > 1]
    if several:
        raise InputError(f"{path}: [{SECTION}] {OUT}: names one run, and {several[0]!r} has several values; leave out "
                         f"{OUT}, or write a [[{SECTION}]] for each value")


def _choose_grids(grids: list[dict[str, list]], given: Mapping[str, Any], path: str) -> list[dict[str, list]]:
    """Return the grids that the settings of the command line leave: see the top of this file."""
    for key, value in given.items():
        if any(value in grid.get(key, ()) for grid in grids):
            grids = [grid for grid in grids if value in grid.get(key, [value])]
        elif len(grids) > 1 and all(key in grid for grid in grids) and any(OUT in grid for grid in grids):
            values = ", ".join(repr(value) for grid in grids for value in grid[key])
            raise InputError(f"{path}: [{SECTION}] {key!r}: its runs are named, and have {values}, not {value!r}; "
                             f"take a job file without a {SECTION}")
    return grids


def _short_fingerprint(experiment: Experiment, given: Collection[str]) -> str:
    """Return eight hexadecimal digits for the data folder and the settings that differ from the defaults.

    In a run that starts from another one, what is not given is that run's, so a default that is given counts too.
    """
    defaults = decisive_settings(as_dict(Experiment(experiment.data)))
    settings = decisive_settings(as_dict(experiment))
    own = {f"model.{name}" for name in MAY_DIFFER} & set(given) if experiment.train.from_ is not None else set()
    chosen = {key: value for key, value in settings.items() if value != defaults[key] or key in own}
    # folders relative to the runs, so that they are found again after the whole project was moved
    data = _relative(experiment.data, experiment)
    if FROM in chosen:
        chosen[FROM] = _relative(experiment.train.from_, experiment)
    return fingerprint([data, chosen])[:8]


def _relative(folder: Path, experiment: Experiment) -> str:
    return os.path.relpath(folder.resolve(), experiment.out.resolve())


def _apply_point(experiment: Experiment, point: dict[str, Any], where: str) -> Experiment:
    """Return the experiment with the settings of a point; an `ImpossiblePoint` if they contradict each other.

    Raises `InputError` for a key that is no setting, and for a value of another type: the file is wrong then.
    """
    values = as_dict(experiment)
    for key, value in point.items():
        *sections, name = key.split(".")
        table = values
        for section in sections:
            table = table.get(section) if isinstance(table, dict) else None
        if not isinstance(table, dict) or name not in table:
            valid = ", ".join(sorted(table)) if isinstance(table, dict) else ", ".join(SWEPT)
            raise InputError(f"{where}: [{SECTION}] {key!r}: is not a setting; valid are: {valid}")
        table[name] = value
    before = f"{where}: [{SECTION}]"
    try:
        return from_dict(Experiment, values, before)
    except InputError as error:
        if str(error).startswith(before):
            raise
        return ImpossiblePoint(**{field.name: getattr(experiment, field.name) for field in
                                  dataclasses.fields(Experiment)},
                               impossible=f"{before} {_readable_name(point)}: {error}")


def _readable_name(point: dict[str, Any]) -> str:
    """Return the readable part of a run folder's name, such as 'n_2d-3_lr-0.001'."""
    parts = [f"{key.split('.')[-1]}-{_format_value(value)}" for key, value in point.items()]
    return "_".join(parts)[:100]


def _format_value(value: Any) -> str:
    """Return a value as a part of a folder's name: numbers in short, and of a path only its last part."""
    if isinstance(value, list):
        text = "-".join(map(_format_value, value))
    elif isinstance(value, float):
        text = f"{value:g}"
    else:
        text = Path(value).name if isinstance(value, str) else str(value)
    return re.sub(r"[^\w.+-]+", "-", text) or "none"
