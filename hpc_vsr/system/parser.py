"""Command lines made of settings: every field of a dataclass is an option, and every mistake one line."""

from __future__ import annotations

import dataclasses
import itertools
import re
import sys
from argparse import SUPPRESS, ArgumentError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse

from hpc_vsr.system.config import did_you_mean, read_toml_arguments, readable_errors
from hpc_vsr.system.errors import InputError


class Parser(jsonargparse.ArgumentParser):
    """A command line in which every mistake is an `InputError` of one line."""

    def __init__(self, stage: str, description: str):
        super().__init__(
            prog=f"python -m hpc_vsr.{stage}", description=description, exit_on_error=False,
            allow_abbrev=False, formatter_class=_Help,
        )
        self._settings: type | None = None
        self._file_option: str | None = None
        self._also: tuple[str, ...] = ()

    def add_settings(self, settings: type, file_option: str, also: Sequence[str] = ()) -> None:
        """Add every field of a frozen dataclass as ``--section.key``, readable from a TOML file too.

        Parameters
        ----------
        settings : type
            The dataclass. Nested dataclasses are the sections of the file.
        file_option : str
            The flag that names the TOML file, such as ``--config``.
        also : sequence of str
            Sections that the file may have for other stages; they are not read here.
        """
        self._settings, self._file_option, self._also = settings, file_option, tuple(also)
        self.add_argument(file_option, type=Path | None, default=None, metavar="FILE",
                          help="TOML file with these settings; the command line overrides it")
        known = {option for action in self._actions for option in action.option_strings}
        self.add_class_arguments(settings, None)
        for action in self._actions:  # jsonargparse adds `--section FILE` for each section: not ours
            if action.option_strings and action.option_strings[0] not in known and _is_section(action):
                action.help = SUPPRESS

    def parse(self, argv: Sequence[str] | None) -> tuple[Any, jsonargparse.Namespace]:
        """Return the settings (None if `add_settings` was not called) and all other arguments."""
        argv = list(sys.argv[1:] if argv is None else argv)
        argv = self._file_arguments(argv) + argv
        try:
            with readable_errors():
                namespace = self.instantiate(self.parse_args(argv))
        except ArgumentError as error:
            raise InputError(f"{self._one_line(error)}{self._hint(str(error))} (see --help)") from None
        if self._settings is None:
            return None, namespace
        names = [field.name for field in dataclasses.fields(self._settings)]
        return self._settings(**{name: namespace[name] for name in names}), namespace

    def _file_arguments(self, argv: Sequence[str]) -> list[str]:
        """The TOML file as the command line that it stands for, so that what follows it overrides it."""
        if self._settings is None:
            return []
        path = None
        for argument, following in itertools.zip_longest(argv, argv[1:]):
            if argument == self._file_option:
                path = following
            elif argument.startswith(f"{self._file_option}="):
                path = argument.partition("=")[2]
        return read_toml_arguments(Path(path), self._settings, self._also) if path else []

    def _one_line(self, error: ArgumentError) -> str:
        """jsonargparse's message without its line breaks and Python's type names."""
        text = " ".join(str(error).split())
        missing = re.fullmatch(r"the following arguments are required: (.*)", text)
        if missing:
            names = [self._shown.get(name, name) for name in missing[1].split(", ")]
            return f"missing: {', '.join(names)}"
        text = re.sub(r'Parser key "([\w.-]+)": ', r"--\1: ", text)
        text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
        text = re.sub(r"typing\.Literal\[(.*?)\]", r"value out of \1", text)
        either = re.search(r"Does not validate against any of the Union subtypes Subtypes: \[(.*?), NoneType\] .*"
                           r"Given value: (.*)", text)
        if either:
            text = text[: either.start()] + f"expected {either[1]}, found {either[2]}"
        text = re.sub(r"Expected an? ", "expected ", text)
        return re.sub(r"\. Got value: (.*)", r", found \1", text)

    @property
    def _shown(self) -> dict[str, str]:
        """{destination: how a user writes it}."""
        return {action.dest: action.option_strings[0] if action.option_strings else str(action.metavar or action.dest)
                for action in self._actions}

    def _hint(self, message: str) -> str:
        unknown = re.match(r"unrecognized arguments: (--[\w.-]+)", message)
        if not unknown:
            return ""
        valid = [option for action in self._actions for option in action.option_strings
                 if option.startswith("--") and action.help is not SUPPRESS]
        return did_you_mean(unknown[1], valid, list_all=False)


class _Help(jsonargparse.DefaultHelpFormatter):
    def __init__(self, prog):
        super().__init__(prog, max_help_position=34, width=100)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Paragraphs of a module's docstring are filled; its indented lines, which are commands, stay as they are."""
        parts = text.strip().split("\n\n")
        return "\n\n".join(part if part.startswith("    ") else super(_Help, self)._fill_text(part, width, indent)
                           for part in parts)


def _is_section(action) -> bool:
    return type(action).__name__ == "_ActionConfigLoad"
