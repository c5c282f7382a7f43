"""Sorts files by the numbers in their names: frame2 before frame10, vort_0.05 before vort_0.1, t-1 before t0.

"1.10" comes after "1.9" if it is the number of a version, and before it if it is a decimal number; a dash before a
digit is a sign or a separator. The names of all files together decide, see `read_names`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

INTEGER = r"\d+"
# a point between digits, but not in 12.30.15; an exponent has a sign, as programs write it, so that s01e02 has none
DECIMAL = r"(?<!\d\.)\d+(?:\.\d+)?(?:e[+-]\d+)?(?!\d|\.\d)|\d+"
SIGN = r"(?:(?<!\d)[+-])?"
SURE_SIGN = r"(?:(?<=[_=( ])[+-])?"  # as in t_-5
FRACTION = re.compile(r"(?<!\d\.)(?<!\d)\d+\.(\d+)(?!\d|\.\d|e[+-]\d)")
EXPONENT = re.compile(r"\de[+-]\d")


@dataclass(frozen=True)
class Name:
    """A name cut into texts and the numbers between them, also as written; those with the same texts are a series."""

    texts: tuple[str, ...]
    written: tuple[str, ...]

    @property
    def numbers(self) -> tuple[Decimal, ...]:
        return tuple(map(Decimal, self.written))


@dataclass(frozen=True)
class Order:
    """Files in the order of the numbers in their names.

    Attributes
    ----------
    paths : list of Path
    names : list of Name
    as_decimals : bool
        Whether a point between digits makes them one decimal number.
    doubt : str
        Two names whose order depends on that, if the names do not tell.
    """

    paths: list[Path]
    names: list[Name]
    as_decimals: bool
    doubt: str = ""


def natural_order(paths: Iterable[Path]) -> list[Path]:
    """Return paths sorted by the numbers in their names; names that differ in leading zeros stay apart."""
    return order_files(paths).paths


def order_files(paths: Iterable[Path]) -> Order:
    """Sort paths by their names, in which numbers are read as all names together suggest."""
    found = list(paths)
    names = [path.name.lower() for path in found]
    decimals, is_sure = _has_decimals(names)
    signed = _has_signs(names, decimals)
    ordered = _sort(found, decimals, signed)
    doubt = ""
    if not is_sure:
        other = _sort(found, not decimals, signed)
        doubt = next((f"{here.name} before {there.name}" for here, there in zip(ordered, other, strict=True)
                      if here != there), "")
    return Order(ordered, _cut([path.name.lower() for path in ordered], decimals, signed), decimals, doubt)


def _sort(paths: Sequence[Path], decimals: bool, signed: bool) -> list[Path]:
    names = _cut([path.name.lower() for path in paths], decimals, signed)
    keys = {path: (_key(name), path.name) for path, name in zip(paths, names, strict=True)}
    return sorted(paths, key=keys.__getitem__)


def _key(name: Name) -> tuple:
    return tuple(part for pair in zip(name.texts, (*name.numbers, Decimal(0)), strict=True) for part in pair)


def _cut(names: Sequence[str], decimals: bool, signed: bool) -> list[Name]:
    number = re.compile(f"((?:{SIGN if signed else SURE_SIGN})(?:{DECIMAL if decimals else INTEGER}))")
    parts = [number.split(name) for name in names]
    return [Name(tuple(found[::2]), tuple(found[1::2])) for found in parts]


def _has_signs(names: Sequence[str], decimals: bool) -> bool:
    """Return whether a dash is a sign: t-1 and t0 are then of one series, where otherwise they are of two."""
    return _count_series(names, decimals, True) < _count_series(names, decimals, False)


def _count_series(names: Sequence[str], decimals: bool, signed: bool) -> int:
    return len({name.texts for name in _cut(names, decimals, signed)})


def _has_decimals(names: Sequence[str]) -> tuple[bool, bool]:
    """Return whether a point between digits makes a decimal number, and whether that is sure.

    Programs write 0.05 and 0.1, so zeros behind the point and none at the end, or a fixed number of digits, where the
    order is the same for both. Whoever counts versions writes 1.9 and 1.10. If neither is seen, the more regular
    distances decide.
    """
    fractions = [match[1] for name in names for match in FRACTION.finditer(name)]
    if any(EXPONENT.search(name) for name in names):
        return True, True
    widths = {len(fraction) for fraction in fractions}
    if len(widths) < 2:
        return True, True
    ends, begins = (any(len(fraction) > 1 and fraction[place] == "0" for fraction in fractions) for place in (-1, 0))
    if ends != begins:
        return begins, True
    irregular = [_irregularity(names, decimals) for decimals in (False, True)]
    return irregular[1] <= irregular[0], False


def _irregularity(names: Sequence[str], decimals: bool) -> tuple[int, int]:
    """Return how many series the names make, and how many different distances, roughly, between neighbours."""
    cut = sorted(_cut(names, decimals, False), key=_key)
    distances = {tuple(f"{b - a:.0e}" for a, b in zip(first.numbers, second.numbers, strict=True))
                 for first, second in itertools.pairwise(cut) if first.texts == second.texts}
    return _count_series(names, decimals, False), len(distances)
