"""Corrects attributes that name variables, so that they name none that is not there."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

NAMING = ("coordinates", "ancillary_variables", "grid_mapping", "bounds", "climatology", "cell_measures",
          "formula_terms", "quantization", "grid", "mesh", "geometry", "cell_methods")
# an entry of cell_methods: "lat: lon: mean where land (interval: 1 degree)"
METHOD = re.compile(r"(?:[^\s():]+:\s+)+[^:()]*?(?:\([^)]*\))?(?=\s+[^\s():]+:|\s*$)")


def correct_names(attrs: Mapping, present: Collection[str], known: Collection[str]) -> tuple[dict, list[str]]:
    """Take names of variables that are not there out of the attributes that name variables.

    Parameters
    ----------
    attrs : mapping
    present : collection of str
        Variables and dimensions of the output.
    known : collection of str
        Those of the input: only they are taken out of cell_methods, which may also name what is no variable.

    Returns
    -------
    dict
    list of str
        The attributes that changed.
    """
    kept, changed = {}, []
    for name, value in attrs.items():
        if name not in NAMING or not isinstance(value, str):
            kept[name] = value
            continue
        new = _with_names(name, value, present, known)
        if new:
            kept[name] = new
        if new != value:
            changed.append(str(name))
    return kept, changed


def _with_names(name: str, value: str, present: Collection[str], known: Collection[str]) -> str:
    if name in ("coordinates", "ancillary_variables"):
        missing = [word for word in value.split() if word not in present]
        return " ".join(word for word in value.split() if word in present) if missing else value
    if name == "cell_methods":
        entries = METHOD.findall(value)
        gone = {word for word in known if word not in present}
        if not any(set(re.findall(r"([^\s():]+):", entry.split("(")[0])) & gone for entry in entries):
            return value
        return " ".join(entry.strip() for entry in entries
                        if not set(re.findall(r"([^\s():]+):", entry.split("(")[0])) & gone)
    pairs = re.findall(r"([^\s:]+):\s+([^\s:]+)(?!\S)", value)
    if name == "cell_measures":
        is_whole = all(variable in present for _, variable in pairs)
        return value if is_whole else " ".join(f"{key}: {one}" for key, one in pairs if one in present)
    if name == "formula_terms":  # a formula needs all of its terms
        return value if all(one in present for _, one in pairs) else ""
    if name == "grid_mapping" and ":" in value:
        words = [word.rstrip(":") for word in value.split()]
        return value if all(word in present for word in words) else ""
    if name == "grid" and value not in known:  # a text
        return value
    return value if value in present else ""
