"""Compares the packets of a video with what they should be: how many, in which order, and which are damaged."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpc_vsr.media.video_decode import MEND_DAMAGE
from hpc_vsr.media.video_file import MATROSKA, NO_STAMP, Packets, announced_bytes, is_whole_avi
from hpc_vsr.system.errors import InputError

NEAR_A_SEAM = 3  # packets before a seam, which the container takes for damaged because it counts on


def check_count(path: Path, packets: Packets) -> list[str]:
    """Compare the number of frames, or of bytes, with the one that the file announces.

    Returns a warning if only the number is wrong; raises `InputError` if the file is truncated.
    """
    found = len(packets) + len(packets.empty)
    if packets.container == "avi" and is_whole_avi(path):
        slots = 1 + max(packets.dts) if NO_STAMP not in packets.dts else found
        if slots != packets.declared:
            return [f"{path}: has {slots} frames and announces {packets.declared}; nothing of it is cut off, so the "
                    "number in its header is wrong"]
    elif found < packets.declared:
        raise InputError(f"{path}: has {found} of the {packets.declared} frames that it announces; "
                         "the file is truncated, copy it again")
    elif packets.container == MATROSKA and (size := path.stat().st_size) < (announced := announced_bytes(path)):
        raise InputError(f"{path}: has {size:,} of the {announced:,} bytes that it announces; "
                         "the file is truncated, copy it again")
    return []


def find_seams(packets: Packets) -> list[int]:
    """Return the numbers of the packets at which the time of decoding jumps back."""
    if NO_STAMP in packets.dts:
        return []
    return [int(number) + 1 for number in np.flatnonzero(np.diff(np.frombuffer(packets.dts, np.int64)) < 0)]


def refuse_damage(path: Path, packets: Packets, seams: Sequence[int]) -> None:
    excused = {seam - back for seam in seams for back in range(1, NEAR_A_SEAM + 1)}
    for number in sorted(packets.corrupt - excused):
        if number >= packets.first:
            raise InputError(f"{path}: frame {number} is truncated or damaged; {MEND_DAMAGE}")
    if packets.unfinished and len(packets.unfinished) < len(packets):  # some recorders never write the end
        raise InputError(f"{path}: frame {min(packets.unfinished)} is damaged: its end is missing; {MEND_DAMAGE}")


def find_damage(packets: Packets, order: Sequence[int], failed: set[int]) -> set[int]:
    """Return the numbers of the packets whose pictures are damaged, or may be made from damaged ones."""
    numbers = set(range(packets.first, len(packets))) - packets.discarded
    unfinished = packets.unfinished if len(packets.unfinished) < len(packets) else set()
    begin = min((packets.pts[number] for number in order), default=NO_STAMP)
    # pictures before the first whole one are missing from the start, unless something is wrong with them
    lost = {number for number in numbers - set(order) if packets.pts[number] >= begin}
    found = (failed | packets.corrupt | unfinished | lost) & numbers
    return {number for one in found for number in _made_from(packets, one)}


def _made_from(packets: Packets, number: int) -> set[int]:
    """Return a packet and those whose pictures may be made from its picture: up to the next key picture is shown."""
    if number in packets.disposable:
        return {number}
    keys = sorted(packets.keys)
    after = bisect.bisect_right(keys, number)
    if after == len(keys):
        return set(range(number, len(packets)))
    end = keys[after + 1] if after + 1 < len(keys) else len(packets)
    leading = {later for later in range(keys[after], end) if packets.pts[later] < packets.pts[keys[after]]}
    return {*range(number, keys[after]), *leading}
