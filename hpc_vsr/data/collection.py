"""Compares the clips of a collection: what they must share, what differs, and what to tell of them."""

from __future__ import annotations

import collections
import re
from collections.abc import Collection, Sequence

from hpc_vsr.data.clip_plan import SeenClip, units_of
from hpc_vsr.system.errors import InputError

MOST_NAMED = 3
# Facts that may differ, because the frames are read to the same values, and what a user should know if they do.
MAY_DIFFER = {
    "frames_per_second": ("frames a second", "motion from frame to frame differs too"),
    "luma": ("luma", "Y is read from some files and computed from RGB for others"),
    "bits": ("significant bits", "all are read as grey levels 0..255"),
    "colour_range": ("range of the codes", "all become full range, and a wrong tag would show as a wrong contrast"),
}


def leave_out_copies(seen: Sequence[SeenClip], there: Collection[str]) -> tuple[list[SeenClip], list[str]]:
    """Return each content once, and a line for the copies, which would leak between splits.

    Of the same content the clip is kept whose name is `there` already, in the data set, else the first one.
    """
    first = {clip.sha256: clip for clip in reversed(seen)}
    first |= {clip.sha256: clip for clip in reversed(seen) if clip.name in there}
    copies = [(clip, first[clip.sha256]) for clip in seen if first[clip.sha256] is not clip]
    told = [f"{clip.path}: has the same content as {other.path}, so it is left out" for clip, other in copies]
    if len(told) > MOST_NAMED:
        told = [*told[:MOST_NAMED], f"{len(told) - MOST_NAMED} more clips are left out as copies of others"]
    return [clip for clip in seen if first[clip.sha256] is clip], told


def check_alike(seen: Sequence[SeenClip]) -> None:
    """Raise `InputError` if a clip has other values than most, so that one data set cannot hold both."""
    def compare(what: str, values: Sequence, mend: str) -> None:
        usual = collections.Counter(values).most_common(1)[0][0]
        for clip, value in zip(seen, values, strict=True):
            if value != usual:
                like = seen[list(values).index(usual)]
                raise InputError(f"{clip.path}: has {what} {value}, but {like.path} has {usual}; {mend}")

    apart = "make a data set for each kind"
    compare("channels", [", ".join(clip.channels) for clip in seen], apart)
    compare("values of", ["8 bits" if clip.dtype == "uint8" else "more than 8 bits" if "white" in clip.description
                          else clip.dtype for clip in seen],
            f"convert it, or {apart}")
    compare("units", [str(units_of(clip)) for clip in seen], f"convert it, or {apart}")
    # float64 values from which an offset was subtracted: the normalisation would differ
    compare("float64 values with a large mean,", [str(clip.description.get("offset", 0.0)) for clip in seen],
            "float32 is too coarse for them; subtract the same number from all files first")
    compare("periodic directions", [clip.facts.periodic or "none" for clip in seen], "choose --periodic none")
    if "variable" in seen[0].description:
        compare("frames of", [f"{clip.width}x{clip.height}" for clip in seen],
                "interpolate it, because spectra are compared at one size")


def describe_differences(seen: Sequence[SeenClip]) -> list[str]:
    """Return a line for each fact that differs between the clips and that the user should know."""
    lines = []
    for key, (name, meaning) in MAY_DIFFER.items():
        clips: dict[str, list[SeenClip]] = {}
        for clip in seen:
            clips.setdefault(str(clip.description.get(key, "8" if key == "bits" else "unknown")), []).append(clip)
        if len(clips) > 1:
            counts = ", ".join(f"{value} in {len(found)}" + (f" ({', '.join(one.name for one in found)})"
                                                             if len(found) <= MOST_NAMED else "")
                               for value, found in clips.items())
            lines.append(f"the clips differ in {name}: {counts}; {meaning}")
    return lines


def summarise_warnings(seen: Sequence[SeenClip]) -> list[str]:
    """Return the warnings of all clips; those that differ only in numbers and paths are one line."""
    alike: dict[str, list[tuple[SeenClip, str]]] = {}
    for clip in seen:
        for warning in clip.facts.warnings:
            kind = re.sub(r"\d+", "0", warning.replace(str(clip.path), "").replace(clip.path.name, ""))
            alike.setdefault(kind, []).append((clip, warning))
    lines = []
    for found in alike.values():
        clip, warning = found[0]
        others = list(dict.fromkeys(one.name for one, _ in found if one is not clip))
        named = warning if not clip.name or str(clip.path) in warning else f"{clip.path}: {warning}"
        more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
        lines.append(named + (f" (likewise {', '.join(others[:MOST_NAMED])}{more})" if others else ""))
    return lines
