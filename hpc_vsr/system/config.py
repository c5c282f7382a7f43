"""Settings of a stage (defaults < TOML file < command line) and records of a file, as frozen dataclasses.

This module reads one from TOML and JSON and answers a mistake with one line that says what is wrong, where, and how to
mend it; `hpc_vsr.system.parser` turns settings into a command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import hashlib
import json
import math
import tomllib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_vsr.system.errors import InputError
from hpc_vsr.system.files import not_found

Device = typing.Literal["auto", "cpu", "cuda"]
ABSENT: Any = ...  # value of an optional key that the file of a record does not have
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes",
         list: "a list in brackets", dict: "an object"}
LARGEST = 1e300  # larger numbers are mistakes, and overflow in the next product


class Record:
    """Base of the dataclasses whose fields are the keys of a JSON object that this program writes.

    Keys that are no fields are ignored, because a later version may have added them; settings refuse them.
    """


def read_toml(path: Path) -> dict:
    """Parse a TOML file; an `InputError` names the file and the line of a mistake."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{not_found(path)}; give a TOML file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text; give a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: is not valid TOML: {error}") from None
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply for a file of settings") from None


def format_arguments(content: dict, settings: type, path: str, also: Sequence[str] = ()) -> list[str]:
    """Check the content of a TOML file against a settings dataclass and return it as ``--section.key=value`` arguments.

    Error messages name the file by its `path`. The keys in `also` are for other stages and are left out.
    """
    table = {key: value for key, value in content.items() if key not in also}
    return list(_arguments(table, settings, path, "", also))


def _arguments(table: dict, settings: type, path: str, section: str, also: Sequence[str] = ()):
    hints = typing.get_type_hints(settings)
    types = {key_of(field.name): hints[field.name] for field in dataclasses.fields(settings)}
    names = list(types)
    for key, value in table.items():
        where = f"{path}: [{section}] " if section else f"{path}: "
        if key not in names:
            kind = "setting" if section or not isinstance(value, dict) else "section"
            raise InputError(f"{where}has no {kind} {key!r}{did_you_mean(key, [*names, *also])}")
        expected = types[key]
        if dataclasses.is_dataclass(expected):
            _check_section(value, key, where)
            yield from _arguments(value, expected, path, f"{section}.{key}" if section else key)
            continue
        _convert(value, expected, f"{where}{key}")
        dotted = f"{section}.{key}" if section else key
        if isinstance(value, list) and str in typing.get_args(expected):  # names, in a list or with commas
            value = ",".join(value)
        yield f"--{dotted}={value if isinstance(value, str) else json.dumps(value)}"


def _convert(value: Any, declared: Any, where: str) -> Any:
    """Return a value of TOML or JSON as the declared type; raise `InputError` if it is of another.

    Text becomes a path, and a whole number a float, so that 0 and 0.0 are the same setting. Of a union the first type
    that fits is taken.
    """
    origin, inner = typing.get_origin(declared), typing.get_args(declared)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _convert_to_one(value, [kind for kind in inner if kind is not type(None)], where)
    if origin is typing.Literal:
        if value not in inner:
            raise InputError(f"{where}: expected one of {', '.join(map(repr, inner))}, found {value!r}")
        return inner[inner.index(value)]
    if origin is not None:
        _check_type(value, dict if origin is dict else list, where)
        if origin is dict:
            return {key: _convert(item, inner[1], f"{where}: {key}") for key, item in value.items()}
        if origin is tuple and len(value) != len(inner):
            raise InputError(f"{where}: expected {len(inner)} values, found {value!r}")
        kinds = inner if origin is tuple else inner * len(value)
        return origin(_convert(item, kind, where) for item, kind in zip(value, kinds, strict=True))
    if dataclasses.is_dataclass(declared):
        return from_dict(declared, value, where)
    if declared is Path:
        _check_type(value, str, where)
        return Path(value)
    if declared in WORDS:
        _check_type(value, declared, where)
    return float(value) if declared is float else value


def _convert_to_one(value: Any, kinds: Sequence[Any], where: str) -> Any:
    """Return a value as the first of these types that it fits; if it fits none, the error is that of the first one."""
    for kind in kinds:
        with contextlib.suppress(InputError):
            return _convert(value, kind, where)
    return _convert(value, kinds[0], where)


def _check_type(value: Any, expected: type, where: str) -> None:
    accepted = (int, float) if expected is float else expected
    if not isinstance(value, accepted) or (isinstance(value, bool) and expected is not bool):
        raise InputError(f"{where}: expected {WORDS[expected]}, found {value!r}")
    if isinstance(value, (int, float)) and not abs(value) < LARGEST:
        raise InputError(f"{where}: expected a finite number, found {value!r}")


def check_finite(settings: Any, section: str) -> None:
    """Raise `InputError` if a number of a settings dataclass is infinite or not a number."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, float) and not math.isfinite(item):
                raise InputError(f"{section}.{field.name}: expected a finite number, found {item}")


def did_you_mean(name: str, valid: Sequence[str], list_all: bool = True) -> str:
    """Return the nearest valid name and the list of all; with `list_all` off, the list only if no name is near."""
    close = difflib.get_close_matches(name, valid, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"{meant}; valid are: {', '.join(sorted(valid))}" if list_all or not close else meant


def key_of(field: str) -> str:
    """Return the key of a field in TOML and JSON: that of `from_` is "from", which as a keyword cannot be a field."""
    return field.removesuffix("_")


def as_dict(settings: Any) -> Any:
    """Return settings or a record as plain JSON values (paths as text, tuples as lists, without what is `ABSENT`)."""
    if dataclasses.is_dataclass(settings):
        values = {key_of(field.name): getattr(settings, field.name) for field in dataclasses.fields(settings)}
        return {name: as_dict(value) for name, value in values.items() if value is not ABSENT}
    if isinstance(settings, dict):
        return {key: as_dict(value) for key, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [as_dict(value) for value in settings]
    return str(settings) if isinstance(settings, Path) else settings


def from_dict(settings: type, values: Any, where: str) -> Any:
    """Invert `as_dict`; an `InputError` names `where` if a key is unknown or missing, or a type is wrong."""
    before = f"{where}: " if where else ""
    if not isinstance(values, dict):
        raise InputError(f"{before}expected {WORDS[dict]}, found {values!r}")
    types = _types_of(settings)
    names = {key_of(field.name): field.name for field in dataclasses.fields(settings)}
    given = {}
    for key, value in values.items():
        if key in names:
            declared = types[names[key]]
            if dataclasses.is_dataclass(declared) and not issubclass(settings, Record):
                _check_section(value, key, before)
            given[names[key]] = _convert(value, declared, f"{before}{key}")
        elif not issubclass(settings, Record):
            raise InputError(f"{before}unknown setting {key!r}{did_you_mean(key, list(names))}")
    missing = [field.name for field in dataclasses.fields(settings) if field.name not in given
               and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING]
    if missing:
        raise InputError(f"{before}lacks {', '.join(missing)}")
    with readable_errors():
        return settings(**given)


@functools.cache
def _types_of(settings: type) -> dict[str, Any]:
    return typing.get_type_hints(settings)


def _check_section(value: Any, key: str, before: str) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{before}{key!r} is a section: write [{key}] and its settings below it")


def fingerprint(value: Any) -> str:
    """Return sixteen hexadecimal digits that identify a settings dataclass or any JSON value."""
    text = json.dumps(as_dict(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def named_in_errors(path: Path):
    """Put the name of a file in front of an `InputError` that does not have it."""
    try:
        yield
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None


@contextlib.contextmanager
def readable_errors():
    """Turn a `ValueError` from the checks of a settings dataclass into an `InputError`; it is the user's mistake."""
    try:
        yield
    except InputError:
        raise
    except (OverflowError, ValueError) as error:  # a whole number may be too large to be a float
        raise InputError(str(error)) from None
