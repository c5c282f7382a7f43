"""Counting: what was tried, what survived, what was refused as promised, what was lost."""

from __future__ import annotations

import collections
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from world import World

SURVIVED, REFUSED, LOST, NOT_TRIED = "survived", "refused", "lost", "not tried"
HEAD = ("fault", "tried", SURVIVED, REFUSED, LOST)


@dataclass
class Result:
    """The result of one fault. `note` tells what was lost, or why it was not tried."""

    kind: str
    outcome: str
    note: str = ""


@dataclass
class Kind:
    """A kind of fault: `try_one` plants one, chosen by the random numbers, in a folder of its own."""

    name: str
    try_one: Callable[[World, random.Random, Path], Result]
    weight: int = 1


def kind_of(index: int, kinds: list[Kind]) -> Kind:
    """Each once, then in turn, each as often as its weight and evenly spread."""
    if index < len(kinds):
        return kinds[index]
    places = [((turn + 0.5) / kind.weight, number) for number, kind in enumerate(kinds) for turn in range(kind.weight)]
    return kinds[sorted(places)[index % len(places)][1]]


def try_number(world: World, kinds: list[Kind], seed: int, index: int) -> Result:
    """The fault of that number; the same for the same seed, whatever was tried before."""
    kind = kind_of(index, kinds)
    folder = Path(tempfile.mkdtemp(prefix=f"fault-{index}-", dir=world.folder))
    try:
        result = kind.try_one(world, random.Random(f"{seed}-{index}"), folder)
    except Exception as error:  # a fault of the campaign itself is not passed over either
        result = Result(kind.name, LOST, f"the campaign failed: {type(error).__name__}: {error}")
    shutil.rmtree(folder, ignore_errors=True)
    return result


def verdict(kind: str, done: Iterable, faults: str | None, refused: bool = False) -> Result:
    """Survived or refused if every process ended tidily and nothing is missing; else lost, with the reason."""
    for outcome in done:
        if (reason := outcome.untidiness()) is not None:
            return Result(kind, LOST, reason)
    if faults is not None:
        return Result(kind, LOST, faults)
    return Result(kind, REFUSED if refused else SURVIVED)


def format_table(results: list[Result]) -> str:
    """A row for each kind, and the sum."""
    counts: dict[str, collections.Counter] = {}
    for result in results:
        counts.setdefault(result.kind, collections.Counter())[result.outcome] += 1
    rows = [(kind, sum(count.values()) - count[NOT_TRIED], count[SURVIVED], count[REFUSED], count[LOST])
            for kind, count in counts.items()]
    rows.append(("all", *(sum(row[column] for row in rows) for column in range(1, 5))))
    width = max(len(row[0]) for row in rows)
    lines = [f"{HEAD[0]:<{width}}" + "".join(f"{name:>10}" for name in HEAD[1:])]
    lines += [f"{row[0]:<{width}}" + "".join(f"{number:>10}" for number in row[1:]) for row in rows]
    lines.insert(1, "-" * len(lines[0]))
    lines.insert(-1, "-" * len(lines[0]))
    left_out = sorted({f"{result.kind}: {result.note}" for result in results if result.outcome == NOT_TRIED})
    return "\n".join([*lines, *(f"not tried: {line}" for line in left_out)])
