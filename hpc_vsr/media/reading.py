"""How a source is to be read, beside its path: what the file does not say, or what is to be chosen of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hpc_vsr.system.errors import InputError

Periodic = Literal["auto", "none", "x", "y", "xy"]
Damaged = Literal["refuse", "repeat"]


@dataclass(frozen=True)
class Reading:
    """What the user says about an input; `preprocess` and `upscale` have these settings.

    Attributes
    ----------
    variable : str, optional
        Variable of a field, with the path of its group if it is in one, such as tasks/vorticity; or several: u,v.
    select : str, optional
        One value of each further dimension of a field, such as "level=500,number=0".
    periodic : {"auto", "none", "x", "y", "xy"}
        Directions in which a field goes on at the other side; auto finds longitudes that span 360 degrees.
    bits : int, optional
        Significant bits of images or a video deeper than 8 bits; found if not given.
    rate : float, optional
        Frames a second of a video whose file has no time stamps.
    damaged : {"refuse", "repeat"}
        Whether a damaged frame of a video ends the work, or the frame before it is shown again.
    """

    variable: str | None = None
    select: str | None = None
    periodic: Periodic = "auto"
    bits: int | None = None
    rate: float | None = None
    damaged: Damaged = "refuse"


@dataclass(frozen=True)
class Facts:
    """What a reader found out about an input, beside its frames.

    Attributes
    ----------
    breaks : sequence of int
        Frames before which something is missing (a gap in time, a missing number, an empty frame), ascending. No
        window crosses one.
    empty : sequence of int
        Frames without a single valid value, ascending. They are never read; each is between two breaks.
    periodic : {"", "x", "y", "xy"}
        Directions in which the frames go on at the other side.
    lines : sequence of str
        What was understood, for a person to check: "time: 24 steps, hours since 2000-01-01, 1 h apart".
    warnings : sequence of str
        What the user should know before the work starts.
    """

    breaks: Sequence[int] = ()
    empty: Sequence[int] = ()
    periodic: Literal["", "x", "y", "xy"] = ""
    lines: Sequence[str] = ()
    warnings: Sequence[str] = ()


def without_cropped(facts: Facts, height: int, width: int, scale: int, asked: Periodic, where: str) -> Facts:
    """Return the facts of a source whose frames are cropped to multiples of `scale`, and then not periodic there.

    `InputError` if the user has said that they are periodic.
    """
    cut = [(axis, side) for axis, side in (("x", width), ("y", height)) if axis in facts.periodic and side % scale]
    if not cut:
        return facts
    axis, side = cut[0]
    what = (f"{where}: has {side} {'columns' if axis == 'x' else 'rows'}, and for scale {scale} the last "
            f"{side % scale} of them is left out, so that {axis} is not periodic any more")
    if asked != "auto":
        raise InputError(f"{what}; choose --periodic none or another scale, or interpolate it to a multiple of {scale}")
    left = "".join(name for name in facts.periodic if name not in dict(cut))
    return dataclasses.replace(facts, periodic=left, warnings=[*facts.warnings, f"{what} and has a seam"])
