from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from hpc_vsr.system.config import as_dict, fingerprint, from_dict
from hpc_vsr.system.errors import InputError, Stopped, exit_status
from hpc_vsr.system.parser import Parser


@dataclass(frozen=True)
class Inner:
    """Inner.

    Attributes
    ----------
    lr : float
        A rate.
    """

    lr: float = 1e-3
    steps: int = 10
    loss: Literal["mse", "charbonnier"] = "mse"
    on: bool = True

    def __post_init__(self):
        if self.steps < 1:
            raise InputError(f"inner.steps: must be at least 1, found {self.steps}")


@dataclass(frozen=True)
class Outer:
    """Outer."""

    name: str = "a"
    inner: Inner = field(default_factory=Inner)


def parse(*argv):
    parser = Parser("test", "A test.")
    parser.add_settings(Outer, "--config", also=("sweep",))
    return parser.parse(list(argv))[0]


def write(tmp_path, text):
    path = tmp_path / "job.toml"
    path.write_text(text)
    return path


def test_defaults_are_below_the_file_and_the_file_below_the_command_line(tmp_path):
    path = write(tmp_path, 'name = "b"\n[inner]\nlr = 2\nsteps = 20\n[sweep]\nanything = 1\n')
    settings = parse("--inner.steps", "30", "--config", str(path))
    assert (settings.name, settings.inner) == ("b", Inner(lr=2.0, steps=30))


@pytest.mark.parametrize("text, words", [
    ("[inner]\nlearning_rate = 1", ["job.toml", "[inner]", "learning_rate", "lr, on, steps"]),
    ("[inner]\nstep = 1", ["did you mean 'steps'"]),
    ("[iner]\nlr = 1", ["section 'iner'", "did you mean 'inner'"]),
    ("nane = 'b'", ["did you mean 'name'"]),
    ("inner = 3", ["is a section"]),
    ("[inner]\nsteps = 'many'", ["inner", "steps", "whole number", "'many'"]),
    ("[inner]\nsteps = 1.5", ["whole number", "1.5"]),
    ("[inner]\nsteps = true", ["whole number", "True"]),
    ("[inner]\nlr = 'fast'", ["a number", "'fast'"]),
    ("[inner]\non = 1", ["true or false"]),
    ("[inner]\nloss = 'l1'", ["'mse', 'charbonnier'", "'l1'"]),
    ("[inner]\nsteps = 0", ["at least 1"]),
    ("[inner\n", ["not valid TOML", "line 1"]),
])
def test_a_mistake_in_the_file_is_one_line_that_says_where(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        parse("--config", str(path))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("argv, words", [
    (["--inner.lrr", "1"], ["--inner.lrr", "did you mean '--inner.lr'"]),
    (["--inner.lr", "fast"], ["--inner.lr", "float", "fast"]),
    (["--inner.loss", "l1"], ["--inner.loss", "mse", "l1"]),
    (["--inner.steps", "-3"], ["at least 1"]),
    (["--config", "/nowhere/job.toml"], ["/nowhere/job.toml", "not found"]),
])
def test_a_mistake_on_the_command_line_is_one_line(argv, words):
    with pytest.raises(InputError) as caught:
        parse(*argv)
    for word in words:
        assert word in str(caught.value)


@dataclass(frozen=True)
class Switches:
    """Some.

    Attributes
    ----------
    show_all : bool
        Show all.
    find_cuts : bool
        Find cuts.
    num_steps : int
        Steps.
    """

    show_all: bool = False
    find_cuts: bool = True
    num_steps: int = 3


def parse_switches(*argv: str) -> Switches:
    parser = Parser("test", "A test.")
    parser.add_settings(Switches, "--config", first=("num_steps",))
    parser.add_argument("--dry-run", action="store_true")
    return parser.parse(argv)[0]


@pytest.mark.parametrize("argv, settings", [
    ([], (False, True, 3)), (["--show-all"], (True, True, 3)), (["--show_all"], (True, True, 3)),
    (["--show-all", "--dry-run"], (True, True, 3)), (["--show-all", "false"], (False, True, 3)),
    (["--show_all=true"], (True, True, 3)), (["--no-find-cuts"], (False, False, 3)),
    (["--find-cuts", "--num-steps", "5"], (False, True, 5)), (["--num_steps=6"], (False, True, 6)),
])
def test_a_switch_needs_no_value_and_options_have_dashes_or_underscores(argv, settings):
    assert parse_switches(*argv) == Switches(*settings)


@pytest.mark.parametrize("argv, words", [
    (["--show-all", "maybe"], "--show_all: expected true or false, found maybe"),
    (["--num-step", "5"], "did you mean '--num-steps'"), (["--num_step", "5"], "did you mean '--num_steps'"),
    (["--no-num-steps"], "unrecognized arguments: --no-num-steps"),
])
def test_a_wrong_switch_is_told_as_it_was_spelt(argv, words):
    with pytest.raises(InputError) as refused:
        parse_switches(*argv)
    assert words in str(refused.value)


def test_help_has_no_names_of_python_types():
    parser = Parser("test", "A test.")
    parser.add_settings(Switches, "--config", first=("num_steps",))
    lines = [" ".join(line.split()) for line in parser.format_help().splitlines()]
    assert "usage: python -m hpc_vsr.test [--config FILE] [--OPTION VALUE ...]" in lines
    assert "--num-steps N Steps. (default: 3)" in lines and "--show-all Show all." in lines
    assert any(line.startswith("--find-cuts, --no-find-cuts Find cuts. (default: on)") for line in lines)
    assert lines.index("settings that are changed most:") < lines.index("settings:")


def test_settings_survive_json():
    settings = Outer("b", Inner(lr=0.5, on=False))
    assert from_dict(Outer, as_dict(settings), "here") == settings
    with pytest.raises(InputError, match="here: inner: unknown setting 'lrr'"):
        from_dict(Outer, {"inner": {"lrr": 1}}, "here")


def test_a_fingerprint_follows_the_values_and_not_their_order():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})


def test_exit_statuses(capsys):
    def raising(error):
        def main(_argv):
            if error:
                raise error

        return main

    statuses = [exit_status(raising(error))
                for error in (None, InputError("x:\n  y"), Stopped("s"), RuntimeError("r"))]
    assert statuses == [0, 2, 75, 1]
    err = capsys.readouterr().err
    assert "error: x: y\n" in err and "stopped: s\n" in err and "RuntimeError: r" in err
