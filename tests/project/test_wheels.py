"""The conclusions of tests/support/wheels.py from the names of a package's files."""

from __future__ import annotations

import pytest
from wheels import kind_of_wheel, read_files

TOLD = """\
Looking in indexes: https://index.example/simple
  Found link https://files.example/ab/pure-1.0-py3-none-any.whl (from https://index.example/simple/p/), version: 1.0
  Found link https://files.example/cd/pure-1.1-py3-none-any.whl#sha256=0f (from https://index.example/simple/p/) \
(requires-python:>=3.12), version: 1.1
  Skipping link: none of the wheel's tags (cp311-cp311-win_amd64) are compatible: \
https://files.example/ef/fast-2.0%2Bcpu-cp311-cp311-win_amd64.whl (from https://index.example/simple/p/)
  Found link https://files.example/gh/pure-1.0.tar.gz (from https://index.example/simple/p/), version: 1.0
Skipping link: not a file: https://index.example/simple/p/
p (1.1)
"""
ARM = "manylinux_2_27_aarch64.manylinux_2_28_aarch64"


def test_the_files_of_a_package_are_read_from_what_pip_tells():
    assert read_files(TOLD) == {"pure-1.0-py3-none-any.whl": "", "pure-1.1-py3-none-any.whl": ">=3.12",
                                "fast-2.0+cpu-cp311-cp311-win_amd64.whl": "", "pure-1.0.tar.gz": ""}


@pytest.mark.parametrize("name, pythons, kind", [
    (f"p-1.0-cp312-cp312-{ARM}.whl", ">=3.11", "wheel"),
    (f"p-1.0-cp311-abi3-{ARM}.whl", "", "wheel"),
    ("p-1.0-py3-none-manylinux2014_aarch64.whl", "", "wheel"),
    ("p-1.0-1-py2.py3-none-any.whl", "", "pure"),
    ("p-1.0-py3-none-any.whl", ">=3.12", "pure"),
    ("p-1.0-py3-none-any.whl", ">=3.12.1", "MISSING"),
    ("p-1.0-py3-none-any.whl", "!=3.4.*'", "pure"),
    ("p-1.0-py3-none-any.whl", ">=3.13", "MISSING"),
    ("p-1.0.1-py3-none-any.whl", "", "MISSING"),
    (f"p-1.0-cp313-cp313-{ARM}.whl", "", "MISSING"),
    (f"p-1.0-cp312-cp312t-{ARM}.whl", "", "MISSING"),
    ("p-1.0-cp312-cp312-manylinux_2_28_x86_64.whl", "", "MISSING"),
    ("p-1.0-cp312-cp312-manylinux_2_34_aarch64.whl", "", "MISSING"),
    ("p-1.0-cp312-cp312-musllinux_1_2_aarch64.whl", "", "MISSING"),
    ("p-1.0.tar.gz", "", "MISSING")])
def test_a_wheel_counts_only_for_its_version_machine_python_and_glibc(name, pythons, kind):
    assert kind_of_wheel({name: pythons}, "1.0", "aarch64", "3.12") == kind


def test_a_newer_glibc_installs_more_wheels():
    files = {"p-1.0-cp312-cp312-manylinux_2_34_aarch64.whl": ""}
    assert kind_of_wheel(files, "1.0", "aarch64", "3.12", glibc="2.39") == "wheel"
