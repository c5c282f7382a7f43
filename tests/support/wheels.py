"""Find packages of constraints.txt that lack a wheel for a machine or a version of Python that is not here.

    python tests/support/wheels.py [PACKAGE ...] [--machine aarch64] [--python 3.12] [--glibc 2.28]

pip tells the names of a package's files; none of them is downloaded. In the table 'wheel' is a wheel for that machine,
'pure' one for every machine, and MISSING neither: pip would compile, or refuse. Then the exit status is 1.

Without PACKAGE it asks for all of constraints.txt, in about two minutes. It leaves pip's settings out, for they may
name folders of this machine; the variable PIP_INDEX_URL chooses another index. Python 3.12 means its first release, as
it does to pip; 3.12.4 is possible too. --glibc is the oldest that a wheel must do with: 2.28 is that of RHEL 8 and
Debian 10, 2.31 of SLES 15, 2.34 of RHEL 9.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from urllib.parse import unquote

from licences import pinned
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

MACHINES = ("aarch64", "x86_64")
PYTHONS = ("3.11", "3.12", "3.13")
GLIBC = "2.28"
HIDDEN = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX")  # tell of other files than the index's
FILE = re.compile(r"/([^/\s#]+)(?:#\S*)? \(from [^)]*\)(?: \(requires-python:([^)]*)\))?")


def read_files(told: str) -> dict[str, str]:
    """{file name: the versions of Python that it is for, '' for any} of what ``pip index versions -vv`` tells."""
    return {unquote(name): pythons for name, pythons in FILE.findall(told)}


def list_files(package: str) -> dict[str, str]:
    """The files of all versions of a package on the index, as `read_files` gives them; `LookupError` without any."""
    environment = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    done = subprocess.run([sys.executable, "-m", "pip", "index", "versions", "-vv", package], capture_output=True,
                          text=True, env={**environment, "PIP_CONFIG_FILE": os.devnull}, check=False)
    files = read_files(done.stdout)
    if not files:
        lines = (done.stdout + done.stderr).splitlines() or ["no answer"]
        reason = next((line for line in lines if line.startswith("Could not fetch")), lines[-1])
        raise LookupError(f"pip finds no file of {package}: {reason}")
    return files


def list_tags(machine: str, python: str, glibc: str) -> set[Tag]:
    """The tags of the wheels that a CPython installs on Linux with this glibc."""
    major, minor = map(int, glibc.split("."))
    platforms = [f"manylinux_{major}_{number}_{machine}" for number in range(5, minor + 1)]
    platforms += [f"{name}_{machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1")]  # older names
    version = tuple(map(int, python.split(".")[:2]))
    return {*cpython_tags(version, platforms=platforms, abis=["cp{}{}".format(*version)]),
            *compatible_tags(version, platforms=platforms)}


def kind_of_wheel(files: dict[str, str], version: str, machine: str, python: str, glibc: str = GLIBC) -> str:
    """'wheel', 'pure' or 'MISSING', for one version of a package that has these files."""
    tags = list_tags(machine, python, glibc)
    fitting = {tag.platform for name, pythons in files.items() for tag in _tags_of(name, version) & tags
               if _is_for(pythons, python)}
    return "MISSING" if not fitting else "pure" if fitting == {"any"} else "wheel"


def _tags_of(name: str, version: str) -> frozenset[Tag]:
    with contextlib.suppress(InvalidWheelFilename):
        _, found, _, tags = parse_wheel_filename(name)
        if SpecifierSet(f"=={version}").contains(found, prereleases=True):
            return tags
    return frozenset()


def _is_for(pythons: str, python: str) -> bool:
    try:
        return SpecifierSet(pythons).contains(python)
    except InvalidSpecifier:  # pip ignores it too
        return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="NAME or NAME==VERSION (default: all pinned)")
    parser.add_argument("--machine", nargs="+", default=MACHINES, help="as uname -m names it (default: both)")
    parser.add_argument("--python", nargs="+", default=PYTHONS, help="(default: 3.11 to 3.13)")
    parser.add_argument("--glibc", default=GLIBC, help=f"(default: {GLIBC})")
    arguments = parser.parse_args()
    versions = pinned()
    if arguments.packages:
        known = {canonicalize_name(name): version for name, version in versions.items()}
        asked = [package.partition("==") for package in arguments.packages]
        versions = {name: version or known.get(canonicalize_name(name), "") for name, _, version in asked}
        if unknown := [name for name, version in versions.items() if not version]:
            parser.error(f"not in constraints.txt: {', '.join(unknown)}; say NAME==VERSION")
    targets = list(product(arguments.machine, arguments.python))
    try:
        with ThreadPoolExecutor(4) as pool:
            listed = list(pool.map(list_files, versions))
    except LookupError as error:
        parser.error(str(error))
    rows = [[name, version, *(kind_of_wheel(files, version, *target, arguments.glibc) for target in targets)]
            for (name, version), files in zip(versions.items(), listed, strict=True)]
    table = [["package", "version", *map(" ".join, targets)], *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    missing = sum(row.count("MISSING") for row in rows)
    print(f"\n{len(rows)} packages, {missing} wheels missing")
    for (name, version, *kinds), files in zip(rows, listed, strict=True):
        if "MISSING" in kinds:
            found = sorted({pythons or "any" for file, pythons in files.items() if _tags_of(file, version)})
            print(f"{name} {version}: " + (f"wheels for Python {' and '.join(found)}" if found else "no wheel at all"))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
