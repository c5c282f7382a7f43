"""Turns the messages of the library that parses command lines into one line for the user."""

from __future__ import annotations

import re

from hpc_vsr.system.config import did_you_mean


def format_option_error(message: str, spellings: dict[str, list[str]], forms: dict[str, str]) -> str:
    """Return a message in one line, without the names of Python's types.

    `spellings` maps the name of each argument to the ways to write it, the one with dashes first; `forms` maps it to
    the form of its value, such as [LOW,HIGH].
    """
    text = " ".join(message.split())
    missing = re.fullmatch(r"the following arguments are required: (.*)", text)
    if missing:
        return f"missing: {', '.join(spellings.get(name, [name])[0] for name in missing[1].split(', '))}"
    unknown = re.match(r"unrecognized arguments: (--[\w.-]+)", text)
    if unknown:
        return text + _suggest_option(unknown[1], spellings)
    text = re.sub(r'Parser key "([\w.-]+)": ', r"--\1: ", text)
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
    text = re.sub(r"typing\.Literal\[(.*?)\]", r"value out of \1", text)
    either = re.search(r"Does not validate against any of the Union subtypes Subtypes: \[(.*?), NoneType\] .*"
                       r"Given value: (.*)", text)
    if either:
        text = text[: either.start()] + f"expected {either[1]}, found {either[2]}"
    text = re.sub(r"--([\w.-]+): expected tuple\[[^\]]+\]", lambda found: (
        f"--{found[1]}: expected {forms.get(found[1], 'numbers in brackets')}, in brackets without a space"), text)
    text = re.sub(r"Expected an? ", "expected ", text).replace("expected bool", "expected true or false")
    return re.sub(r"\. Got value: (.*)", r", found \1", text)


def _suggest_option(unknown: str, spellings: dict[str, list[str]]) -> str:
    """Return the nearest option, with the separator that this user writes, dashes or underscores."""
    other = "-" if "_" in unknown else "_"
    valid = []
    for written in spellings.values():
        options = [option for option in written if option.startswith("--")]
        if options:
            valid.append(next((option for option in options if other not in option[2:]), options[-1]))
    return did_you_mean(unknown, valid, list_all=False)
