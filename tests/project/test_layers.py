"""The house: which file may import which, and which outside library each is the only user of."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from repository import ROOT

PACKAGE = ROOT / "hpc_vsr"

# From the commands down to what everything stands on. The files of a row import from rows below it, and the files of a
# folder each other. Commands are the files beside the folders, and each folder's __main__.
ROWS = [["a command"], ["doctor", "export", "upscale"], ["cluster"], ["report"], ["training"], ["evaluation"],
        ["experiment"], ["runs"], ["data"], ["media"], ["metrics", "models"], ["system"]]
MOST_ENTRIES = 26  # of a listing of hpc_vsr/
ONLY_USERS = {
    "h5py": {"data/shards", "media/field_hdf5"},
    "mpi4py": {"system/mpi"},
    "av": {f"media/video_{name}" for name in ("convert", "decode", "file", "join", "sink", "source")},
    "xarray": {f"media/field_{name}" for name in ("beside", "files", "sink", "values")},
    "tifffile": {"media/tiff_file"},
    "submitit": {"cluster/jobs", "cluster/local", "cluster/submit"},
    "matplotlib": {"report/figures", "report/pictures"},
    "skimage": {"metrics/image"},
    "jsonargparse": {"system/parser"},
}


def modules() -> dict[str, Path]:
    return {str(path.relative_to(PACKAGE).with_suffix("")): path for path in PACKAGE.rglob("*.py")}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "hpc_vsr":
                found |= {f"hpc_vsr.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return found


def row_of(module: str) -> int:
    folder, _, name = module.partition("/")
    entry = folder if name and name != "__main__" else "a command"
    return next(number for number, row in enumerate(ROWS) if entry in row)


@pytest.mark.parametrize("module", sorted(set(modules()) - {"__init__"}))
def test_an_import_points_to_a_lower_row_or_stays_in_its_folder(module):
    for name in imports(modules()[module]):
        if name.startswith("hpc_vsr.") and name != "hpc_vsr.__version__":
            other = name.removeprefix("hpc_vsr.").replace(".", "/")
            other = other if (PACKAGE / f"{other}.py").exists() else f"{other}/__init__"
            own = "/" in module and module.split("/")[0] == other.split("/")[0]
            assert own or row_of(other) > row_of(module), f"{module} imports {name}"


@pytest.mark.parametrize("library", ONLY_USERS)
def test_a_library_is_imported_by_one_place_alone(library):
    users = {module for module, path in modules().items()
             if any(name.split(".")[0] == library for name in imports(path))}
    assert users == ONLY_USERS[library]


def test_the_listing_is_short():
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_the_networks_are_pure_torch():
    for module, path in modules().items():
        # two are of the machine, and one finds motion on the CPU before a network sees the frames
        if module.startswith("models/") and module not in ("models/precision", "models/bf16", "models/align"):
            outside = {name.split(".")[0] for name in imports(path)} - {"hpc_vsr", "torch", "__future__"}
            allowed = {"collections", "contextlib", "copy", "dataclasses", "itertools", "math", "typing"}
            assert outside <= allowed, f"{module}: {outside}"


@pytest.mark.parametrize("folder", ["preprocess", "jobs", "slurm"])
def test_no_python_outside_the_library(folder):
    assert not list((ROOT / folder).rglob("*.py"))
