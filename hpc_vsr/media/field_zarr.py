"""Looks into Zarr stores: groups, pickled objects, chunks that are not there."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from hpc_vsr.media.field_hdf5 import absent_warning
from hpc_vsr.system.errors import InputError

PICKLED = r'"id"\s*:\s*"pickle"|numcodecs\.pickle'  # filters that would unpickle an array
DESCRIPTIONS = (".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json")


def is_store(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in DESCRIPTIONS)


def check_store(path: Path) -> None:
    """Raise `InputError` if reading an array would unpickle objects, which can run any code."""
    for folder, names in _walk(path):
        for part in (folder / name for name in names):
            if re.search(PICKLED, part.read_text(encoding="utf-8", errors="replace")):
                raise InputError(f"{part}: holds pickled objects, which could run any program; write it without them")


def list_groups(path: Path) -> list[str]:
    """Return the groups of a store that hold arrays, "" for the top."""
    parents = {folder.parent for folder, names in _walk(path) if folder != path and _is_array(folder, names)}
    return sorted({"", *("" if parent == path else str(parent.relative_to(path)) for parent in parents)})


def look_for_absent(path: Path, name: str) -> list[str]:
    """Return a warning if chunks of an array are not there, and nothing declares their value as missing."""
    import zarr

    try:
        array = zarr.open_array(str(path / name), mode="r")
        absent, total, fill = array.nchunks - array.nchunks_initialized, array.nchunks, array.fill_value
        # xarray writes a _FillValue into format 2 as the fill value; 0 is what an array has if nobody chose one
        is_chosen = (path / name / ".zarray").is_file() and fill != 0
        declared = [array.attrs[key] for key in ("_FillValue", "missing_value") if key in array.attrs]
    except Exception:  # xarray reports what cannot be read, with its reason
        return []
    is_missing = fill is None or fill != fill or is_chosen or any(_same(one, fill) for one in declared)
    return [] if is_missing or not absent else [absent_warning(path, name, absent, total, "chunks", fill)]


def _same(declared: object, fill: object) -> bool:
    with contextlib.suppress(TypeError, ValueError):
        return float(declared) == float(fill)  # type: ignore[arg-type]
    return isinstance(declared, str)  # as Zarr 3 encodes a fill value; xarray decodes it


def _walk(path: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folders of groups and arrays with the names of the files that describe them, but no chunks."""
    for folder, folders, files in os.walk(path):
        names = [name for name in DESCRIPTIONS if name in files]
        if names:
            yield Path(folder), names
        if _is_array(Path(folder), names):
            folders.clear()


def _is_array(folder: Path, names: list[str]) -> bool:
    if "zarr.json" not in names:
        return ".zarray" in names
    try:
        return json.loads((folder / "zarr.json").read_text(encoding="utf-8")).get("node_type") == "array"
    except (ValueError, AttributeError, OSError):
        return False
