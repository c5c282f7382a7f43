"""Checks that several variables of a field lie on the same points, and not on a staggered grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_vsr.system.errors import InputError

PLACES = ("stagger", "location")  # attributes of WRF, and of SGRID and UGRID, that say where in a cell a value lies
MEND = ("interpolate them to the same points first, such as the centres of the cells of a staggered grid (xgcm, cdo), "
        "or make a data set of each")


def check_same_points(names: Sequence[str], variables: Sequence[Sequence[Any]], files: Sequence[Path]) -> None:
    """Raise `InputError` unless all variables have the same dimensions, positions and steps of time.

    Parameters
    ----------
    names : sequence of str
    variables : sequence of sequence of xarray.DataArray
        For each variable and each file the array over (time, y, x).
    files : sequence of Path
    """
    for path, (first, *others) in zip(files, zip(*variables, strict=True), strict=True):
        for name, array in zip(names[1:], others, strict=True):
            ours, theirs = _points(first), _points(array)
            # a place that only one of them has says nothing
            if any(own != other and None not in (own, other) for own, other in zip(ours, theirs, strict=True)):
                ours, theirs = (", ".join(filter(None, texts)) for texts in (ours, theirs))
                raise InputError(f"{path}: {names[0]} lies on {ours} and {name} on {theirs}; the variables of a data "
                                 f"set share their points and times: {MEND}")


def _points(array: Any) -> list[str | None]:
    """Return the dimensions of a variable, its place in a cell, and its positions, as texts; None if it has none."""
    dims = ", ".join(f"{dim}: {size}" for dim, size in zip(array.dims, array.shape, strict=True))
    named = str(array.encoding.get("coordinates") or array.attrs.get("coordinates") or "").split()
    positions = sorted(name for name in named if name in array.coords
                       and set(array.dims[1:]) <= set(array.coords[name].dims))
    return [f"({dims})", *(f"{key} {array.attrs[key]}" if str(array.attrs.get(key, "")).strip() else None
                           for key in PLACES), f"at {', '.join(positions)}" if positions else None]
