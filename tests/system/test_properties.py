"""Properties that hold for any input that can be made up: of sealed files, of settings, of splits."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from repository import ROOT

from hpc_vsr.data.recipe import Recipe
from hpc_vsr.data.splits import REACH, WINDOW, SplitFractions, plan_shards, split_frames
from hpc_vsr.experiment.jobfile import JobFile
from hpc_vsr.experiment.sweep import read_sweep
from hpc_vsr.runs.history import read_history
from hpc_vsr.system.config import read_toml
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import read_sealed, write_sealed
from hpc_vsr.system.parser import Parser

pytestmark = pytest.mark.slow

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TOML = [path.read_text() for path in sorted([*ROOT.glob("jobs/*.toml"), *ROOT.glob("preprocess/*.toml")])]
LINES = sorted({line for text in TOML for line in text.splitlines() if line and not line.startswith("#")})


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@given(content=st.dictionaries(st.text(), VALUES, max_size=6))
def test_a_sealed_file_gives_back_what_it_was_given(folder, content):
    content.pop("content_sha256", None)
    write_sealed(folder / "s.json", content)
    assert read_sealed(folder / "s.json", "") == content


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_sealed_file_changes_no_value(folder, place, bit):
    content = {
        "fingerprint": "ab12",
        "offset": -1.0776e-4,
        "splits": {"train": [0, 141]},
        "names": ["Y", "vorticity é"],
    }
    path = folder / "f.json"
    write_sealed(path, content)
    damaged = bytearray(path.read_bytes())
    damaged[place % len(damaged)] ^= 1 << bit
    path.write_bytes(damaged)
    with contextlib.suppress(InputError):
        assert read_sealed(path, "") == content  # such as a space that became a tab


@settings(deadline=None)
@given(
    lines=st.lists(
        st.sampled_from(LINES)
        | st.text(max_size=30)
        | st.builds(
            "{} = {}".format,
            st.sampled_from(["steps", "lr", '"train.lr"', "data", "recursive_streams", "nodes", "shards", "sigma"]),
            VALUES.map(json.dumps),
        ),
        max_size=12,
    )
)
@example(lines=["x = " + "[" * 5000])
def test_any_text_is_a_job_file_or_refused_in_one_line(folder, lines):
    path = folder / "any.toml"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    for kind, option in ((JobFile, "--config"), (Recipe, "--recipe")):
        parser = Parser("test", "")
        parser.add_settings(kind, option, also=("sweep",))
        try:
            parser.parse([option, str(path)])
            read_sweep(read_toml(path), str(path))
        except InputError as error:
            assert str(error).strip()


@given(content=st.binary(max_size=300))
def test_any_bytes_are_toml_or_refused(folder, content):
    path = folder / "bytes.toml"
    path.write_bytes(content)
    try:
        assert isinstance(read_toml(path), dict)
    except InputError as error:
        assert str(path) in str(error)


@given(lines=st.lists(st.text(max_size=20) | VALUES.map(json.dumps), max_size=8))
def test_any_lines_are_a_history(folder, lines):
    path = folder / "metrics.jsonl"
    path.write_text("\n".join([*lines, '{"step": 7}']), encoding="utf-8", errors="replace")
    assert read_history(path)[-1] == {"step": 7}


@given(num_frames=st.integers(0, 3000), num_shards=st.integers(1, 200))
def test_every_sample_of_a_split_is_in_one_shard_and_none_crosses_it(num_frames, num_shards):
    try:
        splits = split_frames(num_frames, SplitFractions())
        plans = plan_shards(splits, num_shards)
    except InputError:
        return
    for split, (start, stop) in splits.items():
        centres = [
            centre for plan in plans if plan.split == split for centre in range(plan.start + REACH, plan.stop - REACH)
        ]
        assert centres == list(range(start + REACH, stop - REACH))
    assert all(plan.num_frames >= WINDOW for plan in plans)
