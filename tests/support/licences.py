"""The licences of the packages of constraints.txt: `python tests/support/licences.py > docs/licences.md`."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, metadata

from repository import ROOT

HEAD = """# Licences of the dependencies

hpc-vsr itself is MIT. These are the packages of `constraints.txt` with what each says of its licence in its
metadata, written by `python tests/support/licences.py`. PyAV's wheels bring FFmpeg with x264 and x265, which are GPL;
nothing of them is part of this project.

| package | version | licence |
|---|---|---|"""


def licence(package: str) -> str:
    """One line: the SPDX expression, else the classifiers, else the first line of the free text."""
    try:
        found = metadata(package)
    except PackageNotFoundError:
        return "not installed here"
    classifiers = found.get_all("Classifier") or ()
    classified = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License ::")]
    free = (found.get("License") or "").strip().splitlines()
    return found.get("License-Expression") or ", ".join(classified) or (free[0][:60] if free else "not stated")


def pinned() -> dict[str, str]:
    """{package: version} of constraints.txt."""
    lines = [line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    return {name: version for name, version in lines}


if __name__ == "__main__":
    print(HEAD)
    for name, version in pinned().items():
        print(f"| {name} | {version} | {licence(name).replace('|', '/')} |")
