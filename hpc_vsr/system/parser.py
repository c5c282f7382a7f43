"""Command lines made from settings: every field of a dataclass is an option, and every mistake gives one line."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import sys
import types
import typing
from argparse import SUPPRESS, ArgumentError
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonargparse

from hpc_vsr.system.config import format_arguments, key_of, read_toml, readable_errors
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.option_errors import format_option_error

FIRST = "settings that are changed most"
SECTIONS = {"model": "the network ([model])", "train": "training ([train])", "evaluate": "evaluation ([evaluate])",
            "resources": "resources of the jobs ([resources])", "degradation": "degradation ([degradation])",
            "split": "split ([split])", "": "settings"}
METAVARS = {int: "N", float: "X", Path: "PATH", str: "TEXT"}


class Parser(jsonargparse.ArgumentParser):
    """A command line in which every mistake is an `InputError` of one line.

    An option is written with dashes or with underscores. A switch needs no value, and ``--no-NAME`` turns it off.

    Attributes
    ----------
    given : frozenset of str
        Names of the settings that the command line gave ("train.steps"), after `parse`.
    file_content : dict
        Content of the TOML file, after `parse`; empty without a file.
    """

    def __init__(self, stage: str, description: str):
        super().__init__(
            prog=f"python -m hpc_vsr.{stage}", description=description, exit_on_error=False,
            allow_abbrev=False, formatter_class=_Help,
        )
        self._settings: type | None = None
        self._file_option: str | None = None
        self._also: tuple[str, ...] = ()
        self._first: tuple[str, ...] = ()
        self._is_prepared = False
        self.given: frozenset[str] = frozenset()
        self.file_content: dict[str, Any] = {}

    def add_settings(self, settings: type, file_option: str, also: Sequence[str] = (), first: Sequence[str] = (),
                     short: Mapping[str, str] | None = None) -> None:
        """Add every field of a frozen dataclass as ``--section.key``; a TOML file can set them too.

        Parameters
        ----------
        settings : type
            The dataclass. Nested dataclasses are the sections of the file.
        file_option : str
            The option that names the TOML file, such as ``--config``.
        also : sequence of str
            Keys of the file that other stages read; they are ignored here.
        first : sequence of str
            The settings that users change most, such as ``train.steps``; the help shows them first.
        short : mapping, optional
            Second options of some settings: {"train.from": "--from"}.
        """
        self._settings, self._file_option, self._also = settings, file_option, tuple(also)
        self.add_argument(file_option, type=Path | None, default=None, metavar="FILE",
                          help="TOML file with these settings; the command line overrides it")
        known = {option for action in self._actions for option in action.option_strings}
        self.add_class_arguments(settings, None)
        for action in self._actions:  # hide the `--section FILE` that jsonargparse adds for each section
            if action.option_strings and action.option_strings[0] not in known and _is_section(action):
                action.help = SUPPRESS
            elif action.option_strings and action.option_strings[0] not in known:
                name = key_of(action.dest)
                self._rename(action, [*([short[name]] if short and name in short else []), f"--{name}"])
        self._first = tuple(first)

    def _rename(self, action, options: Sequence[str]) -> None:
        """Give a setting these options, if its own is not the only one."""
        if action.option_strings != options:
            for option in action.option_strings:
                del self._option_string_actions[option]
            action.option_strings = list(options)
            self._option_string_actions.update(dict.fromkeys(options, action))

    def format_help(self) -> str:
        """Return the help: the stage's options first, then the settings that are changed most, then the others."""
        self._prepare_options()
        groups = list(self._action_groups)  # jsonargparse makes the settings from these
        try:
            self._group_settings()
            return super().format_help()
        finally:
            self._action_groups[:] = groups

    def _prepare_options(self) -> None:
        """Complete the options after the last `add_argument`: second spellings, metavars, switches, and the usage."""
        if self._is_prepared:
            return
        self._is_prepared = True
        for action in self._actions:
            if not action.option_strings or action.help is SUPPRESS:
                continue
            for option in list(action.option_strings):
                dashed, underscored = option.replace("_", "-"), f"--{option[2:].replace('-', '_')}"
                if dashed not in action.option_strings:
                    action.option_strings.insert(0, dashed)
                    self._option_string_actions[dashed] = action
                if option.startswith("--") and underscored not in action.option_strings:
                    action.option_strings.append(underscored)
                    self._option_string_actions[underscored] = action
            kind = _kind_of(action)
            if kind is bool:
                action.nargs, action.const = "?", "true"
            if action.metavar is None and kind in METAVARS:
                action.metavar = METAVARS[kind]
        if self._settings is not None:
            positional = "".join(f" {action.dest.upper()}" for action in self._actions if not action.option_strings)
            self.usage = f"{self.prog}{positional} [{self._file_option} FILE] [--OPTION VALUE ...]"

    def _group_settings(self) -> None:
        """Put the settings into groups: those changed most, then one group for each section."""
        if self._settings is None:
            return
        settings = [action for action in self._actions if action.option_strings and action.help is not SUPPRESS
                    and _belongs_to(action, self._settings)]
        groups: dict[str, list] = {FIRST: [action for action in settings if action.dest in self._first]}
        for action in settings:
            if action.dest not in self._first:
                section = action.dest.partition(".")[0] if "." in action.dest else ""
                groups.setdefault(SECTIONS.get(section, section), []).append(action)
        kept = [group for group in self._action_groups if not set(group._group_actions) & set(settings)]
        self._action_groups[:] = kept
        for title, actions in groups.items():
            if actions:
                self.add_argument_group(title)._group_actions.extend(actions)

    def _expand_switches(self, argv: Sequence[str]) -> list[str]:
        """Replace words such as ``--no-compare`` by ``--compare=false``."""
        switches = {option for action in self._actions if _kind_of(action) is bool for option in action.option_strings}
        spelled = []
        for word in argv:
            head, _, name = word.rpartition("no-") if word.startswith("--") else ("", "", "")
            off = f"{head}{name}"
            is_off = name and (head == "--" or head.endswith(".")) and off in switches
            spelled.append(f"{off}=false" if is_off else word)
        return spelled

    def _join_several(self, argv: Sequence[str]) -> list[str]:
        """Give the values of an option that takes one or several, such as the clips of ``--video``, as one list.

        They may follow each other, as a shell expands ``--video runs/*.mp4``, or have the option before each.
        """
        several = {option: action.dest for action in self._actions if _takes_several(action)
                   for option in action.option_strings}
        values: dict[str, list[str]] = {}
        joined: list[str] = []
        places: dict[str, int] = {}
        taker = None  # the option that the next words belong to
        for word in argv:
            option, equals, value = word.partition("=")
            if option in several:
                taker = several[option]
                if places.setdefault(taker, len(joined)) == len(joined):
                    joined.append(option)
                values.setdefault(taker, []).extend([value] if equals else [])
                taker = None if equals else taker
            elif word.startswith("--") or taker is None:
                joined.append(word)
                taker = None
            else:
                values[taker].append(word)
        for name, place in places.items():
            if found := values[name]:
                joined[place] += f"={found[0] if len(found) == 1 else json.dumps(found)}"
        return joined

    def parse(self, argv: Sequence[str] | None) -> tuple[Any, jsonargparse.Namespace]:
        """Return the settings (None if `add_settings` was not called) and all other arguments."""
        self._prepare_options()
        argv = self._join_several(self._expand_switches(sys.argv[1:] if argv is None else argv))
        options = self._option_string_actions
        self.given = frozenset(key_of(options[name].dest) for name in (word.partition("=")[0] for word in argv)
                               if name in options)
        try:
            with readable_errors():
                namespace = self.instantiate(self.parse_args(self._file_arguments(argv) + argv))
        except ArgumentError as error:
            shown = [action for action in self._actions if action.help is not SUPPRESS]
            spellings = {action.dest: action.option_strings or [str(action.metavar or action.dest)] for action in shown}
            forms = {action.dest: str(action.metavar) for action in shown}
            raise InputError(f"{format_option_error(str(error), spellings, forms)} (see --help)") from None
        if self._settings is None:
            return None, namespace
        names = [field.name for field in dataclasses.fields(self._settings)]
        return self._settings(**{name: namespace[name] for name in names}), namespace

    def _file_arguments(self, argv: Sequence[str]) -> list[str]:
        """Return the settings of the TOML file as arguments; the command line comes after them and overrides them."""
        if self._settings is None:
            return []
        path = None
        for argument, following in itertools.zip_longest(argv, argv[1:]):
            if argument == self._file_option:
                path = following
            elif argument.startswith(f"{self._file_option}="):
                path = argument.partition("=")[2]
        self.file_content = read_toml(Path(path)) if path else {}
        return format_arguments(self.file_content, self._settings, str(path), self._also)


class _Help(jsonargparse.DefaultHelpFormatter):
    """A help text that shows options with dashes and leaves out the names of Python's types."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=34, width=100)

    def _format_action_invocation(self, action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        shown = [option for option in action.option_strings if not re.search(r"_|\+$", option)]
        if _kind_of(action) is bool and action.default is True:
            head, dot, name = shown[0].removeprefix("--").rpartition(".")
            return f"{shown[0]}, --{head}{dot}no-{name}"
        if action.nargs == 0 or _kind_of(action) is bool:
            return ", ".join(shown)
        return f"{', '.join(shown)} {self._format_args(action, self._get_default_metavar_for_optional(action))}"

    def _get_help_string(self, action) -> str:
        text = super()._get_help_string(action)
        found = re.search(r" ?\((required)?(?:, )?(?:type: %\(type\)s)?(?:, )?(default: %\(default\)s)?\)$", text)
        if found is None:
            return text
        text = text[: found.start()]
        if _kind_of(action) is bool:
            return f"{text} (default: on)" if action.default is True else text
        notes = [found[1]] if found[1] else []
        if found[2] and action.nargs != 0 and action.default not in (None, [], ()):
            notes.append(f"default: {_format_default(action.default)}")
        return f"{text} ({', '.join(notes)})" if notes else text

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Fill the paragraphs of a module's docstring; keep the indented ones, which are commands."""
        parts = text.strip().split("\n\n")
        return "\n\n".join(part if part.startswith("    ") else super(_Help, self)._fill_text(part, width, indent)
                           for part in parts)


def _is_section(action) -> bool:
    return type(action).__name__ == "_ActionConfigLoad"


def _kind_of(action) -> type | None:
    """Return the type of an option's value, without the None of an optional one."""
    kind = getattr(action, "_typehint", None) or action.type
    kinds = [one for one in typing.get_args(kind) if one is not type(None) and typing.get_origin(one) is not list
             ] if _is_union(kind) else [kind]
    if str in kinds:  # text, or a list of texts in a file
        return str
    return kinds[0] if len(kinds) == 1 and isinstance(kinds[0], type) else None


def _takes_several(action) -> bool:
    """Return whether an option takes one value or a list of them."""
    kind = getattr(action, "_typehint", None)
    return _kind_of(action) is not None and _is_union(kind) and any(
        typing.get_origin(one) is list for one in typing.get_args(kind))


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _belongs_to(action, settings: type) -> bool:
    return action.dest.partition(".")[0] in {field.name for field in dataclasses.fields(settings)}


def _format_default(value: Any) -> str:
    """Return a default as a user would write it."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_format_default, value))}]"
    return str(getattr(value, "value", value))
