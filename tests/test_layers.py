"""The house: which file may import which, and which outside library each is the only user of."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hpc_vsr"

# A file imports only from floors below its own. A folder is one entry: inside it files may import each other.
FLOORS = [
    {"errors", "memory"},
    {"blur", "cluster", "config", "cuts", "degrade", "files", "metrics", "models", "progress",
     "gpus", "resample", "signals", "sources", "splits", "values"},
    {"baselines", "bf16", "checkpoint", "distributed", "field_metrics", "history", "holder", "shards", "sinks", "site"},
    {"lock", "manifest", "precision", "shard_reader", "slurm"},
    {"dataset", "mpi", "optim", "recipe", "runs"},
    {"methods", "model_card", "requeue", "upscaler", "validation"},
    {"scores"},
    {"evaluate", "export", "preprocess", "upscale"},
    {"experiment", "import_weights"},
    {"run_precision"},
    {"report", "sweep", "training_plan"},
    {"jobfile"},
    {"trainer"},
    {"train"},
    {"job"},
    {"submit"},
    {"launch", "status"},
    {"doctor"},
    {"cli"},
    {"__main__"},
]
ONLY_USERS = {
    "h5py": {"shards"},
    "mpi4py": {"mpi"},
    "av": {"sinks/video", "sources/video"},
    "xarray": {"sinks/field", "sources/field"},
    "submitit": {"job", "launch", "submit"},
    "matplotlib": {"report/figures", "report/pictures"},
    "skimage": {"metrics"},
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


def floor_of(name: str) -> int:
    return next(index for index, floor in enumerate(FLOORS) if name in floor)


@pytest.mark.parametrize("module", sorted(set(modules()) - {"__init__"}))
def test_a_file_imports_only_from_floors_below(module):
    own = module.split("/")[0]
    for name in imports(modules()[module]):
        if name.startswith("hpc_vsr.") and name != "hpc_vsr.__version__":
            other = name.split(".")[1]
            assert other == own or floor_of(other) < floor_of(own), f"{module} imports {name}"


@pytest.mark.parametrize("library", ONLY_USERS)
def test_a_library_is_imported_by_one_place_alone(library):
    users = {module for module, path in modules().items()
             if any(name.split(".")[0] == library for name in imports(path))}
    assert users == ONLY_USERS[library]


def test_every_file_has_a_floor():
    assert {module.split("/")[0] for module in modules()} - {"__init__"} == set().union(*FLOORS)


def test_the_networks_are_pure_torch():
    for module, path in modules().items():
        if module.startswith("models/"):
            outside = {name.split(".")[0] for name in imports(path)} - {"hpc_vsr", "torch", "__future__"}
            allowed = {"collections", "contextlib", "copy", "dataclasses", "math", "typing"}
            assert outside <= allowed, f"{module}: {outside}"


@pytest.mark.parametrize("folder", ["preprocess", "jobs", "slurm"])
def test_no_python_outside_the_library(folder):
    assert not list((ROOT / folder).rglob("*.py"))
