"""docs/formats.md says what is read, refused and told of other people's files; its words are those of the program."""

from __future__ import annotations

import ast
import re

import pytest
from repository import ROOT


def rows() -> list[tuple[str, str]]:
    """Return (kind of input, words of the program) of each row of the tables."""
    text = (ROOT / "docs" / "formats.md").read_text()
    section = text.split("## Input: what is read, refused and told")[1].split("\n## ")[0]
    found = re.findall(r"^\| (.+?) \| .+? \| `(.+?)` \|$", section, re.MULTILINE)
    return [(kind, words) for kind, words in found if not kind.startswith("---")]


def texts_of_the_readers() -> str:
    """Return all texts in the code that reads files and plans data sets, with a mark where a value is put in."""
    found = []
    for path in sorted(path for folder in ("media", "data") for path in (ROOT / "hpc_vsr" / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


@pytest.fixture(scope="module")
def texts() -> str:
    return texts_of_the_readers()


def test_the_tables_have_rows():
    assert len(rows()) >= 40


@pytest.mark.parametrize(("kind", "words"), rows())
def test_the_words_of_the_table_are_those_of_the_program(texts, kind, words):
    assert words in texts, f"{kind}: no reader says {words!r}"


@pytest.mark.parametrize("option", ["select", "periodic", "bits", "rate", "damaged"])
def test_every_setting_of_a_reading_is_explained(option):
    assert f"--{option}" in (ROOT / "docs" / "formats.md").read_text()
