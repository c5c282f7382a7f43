"""Works out which pictures a video file has, when each is shown, and what is missing or damaged in it."""

from __future__ import annotations

import bisect
import dataclasses
from array import array
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from hpc_vsr.media.reading import Damaged
from hpc_vsr.media.video_damage import check_count, find_damage, find_seams, refuse_damage
from hpc_vsr.media.video_decode import DECODING_ERRORS, MEND_DAMAGE, Decoder, Stamps, survey
from hpc_vsr.media.video_file import NO_STAMP, STREAMS_WITHOUT_TIME, Packets, list_packets
from hpc_vsr.media.video_timeline import ASSUMED_RATE, Index, listed, place_in_time
from hpc_vsr.system.errors import InputError


def index_video(path: Path, rate: float | None = None, damaged: Damaged = "refuse", num_threads: int = 0) -> Index:
    """List the frames of a video.

    The time stamps of the file are taken if they are there and each is there once. If they jump back, as in
    recordings that were appended to each other, each part begins where the one before ends. Otherwise all is decoded
    once to learn the order of the pictures, which get equal intervals.

    Parameters
    ----------
    path : Path
    rate : float, optional
        Frames per second of a video without usable time stamps; as declared by the file if not given.
    damaged : {"refuse", "repeat"}
        With "repeat" all is decoded once to find the damaged pictures.
    num_threads : int

    Raises
    ------
    InputError
        If the file has no frames or is cut off, if a picture is known to be damaged without decoding it and `damaged`
        is "refuse", or if `rate` is given for a file that has time stamps.
    """
    packets = list_packets(path)
    if not len(packets):
        raise InputError(f"{path}: has no video frames")
    count = check_count(path, packets)
    seams = find_seams(packets)
    if damaged == "refuse":
        refuse_damage(path, packets, seams)
    is_bare = packets.container in STREAMS_WITHOUT_TIME
    if _are_own_stamps_good(packets, seams) and not (is_bare and rate is not None):
        if rate is not None:
            raise InputError(f"--rate: {path} has time stamps of its own; leave it out")
        if is_bare and packets.rate is None:
            count.append(f"{path}: does not say how many frames it has a second; {ASSUMED_RATE} are assumed; "
                         "--rate gives another number")
        index = _index_by_stamps(path, packets, damaged, num_threads)
    elif seams and rate is None and (given := _join_parts(packets, seams)):
        index = _index_parts(path, packets, seams, given, damaged, num_threads)
    else:
        index = _index_by_order(path, packets, seams, rate, damaged, num_threads)
    return dataclasses.replace(index, warnings=[*count, *index.warnings])


def _are_own_stamps_good(packets: Packets, seams: Sequence[int]) -> bool:
    """Check whether each picture has a time stamp of its own, which says when it is shown."""
    if packets.reorders and packets.container in ("avi", *STREAMS_WITHOUT_TIME):
        return False  # what these have is the time of decoding
    return not seams and NO_STAMP not in packets.pts and len(set(packets.pts)) == len(packets)


def _stamps(packets: Packets, pictures: Sequence[int], given: array | None) -> Stamps:
    of = packets.pts if given is None else given
    keys = {of[number]: (number, packets.positions[number], packets.sizes[number]) for number in packets.keys
            if number not in packets.discarded and of[number] != NO_STAMP}
    return Stamps(pictures, keys, packets.first, given)


def _index_by_stamps(path: Path, packets: Packets, damaged: Damaged, num_threads: int) -> Index:
    numbers = [number for number in range(len(packets)) if number not in packets.discarded]
    pictures = sorted(packets.pts[number] for number in numbers)
    if damaged == "refuse":
        bad, begin = set(), _first_picture(path, _stamps(packets, pictures, None), num_threads)
    else:
        order, failed = survey(path, packets.first, True, num_threads)
        begin = min((packets.pts[number] for number in order), default=None)
        bad = {packets.pts[number] for number in find_damage(packets, order, failed)}
        begin = min([*bad, *([] if begin is None else [begin])])
    # what lies before is missing from the file's start, as in a recording that begins between key frames
    count = bisect.bisect_left(pictures, begin)
    index = place_in_time(path, packets, _stamps(packets, pictures[count:], None), bad)
    if packets.discarded:
        index.lines.append(f"{len(packets.discarded)} further frames are left out by the file's edit list")
    if count == 0:
        return index
    warning = (f"{path}: begins between key frames: {count} frame{'s' * (count > 1)} at the start cannot be decoded "
               f"without what came before, and {'are' if count > 1 else 'is'} left out")
    return dataclasses.replace(index, description={**index.description, "left_out": count},
                               warnings=[warning, *index.warnings])


def _first_picture(path: Path, stamps: Stamps, num_threads: int) -> int:
    """Return the time stamp of the first picture that is decoded."""
    try:
        for frame in Decoder(path, stamps, num_threads).all_frames():
            if frame.pts is not None:
                return frame.pts
    except DECODING_ERRORS as error:
        raise InputError(f"{path}: frame 0 cannot be decoded ({error.strerror}); {MEND_DAMAGE}") from None
    raise InputError(f"{path}: none of its frames can be decoded; the file is damaged, copy it again")


def _join_parts(packets: Packets, seams: Sequence[int]) -> array | None:
    """Return time stamps with which each part begins where the one before ends; None if they are not unique."""
    if NO_STAMP in packets.pts:
        return None
    given, end = array("q"), None
    for first, stop in zip([0, *seams], [*seams, len(packets)], strict=True):
        part = packets.pts[first:stop]
        shift = 0 if end is None else end - min(part)
        given.extend(stamp + shift for stamp in part)
        usual = int(np.median(np.diff(np.sort(part)))) if len(part) > 1 else 1
        end = shift + max(stamp + (length or usual)
                          for stamp, length in zip(part, packets.durations[first:stop], strict=True))
    return given if len(set(given)) == len(given) else None


def _index_parts(path: Path, packets: Packets, seams: Sequence[int], given: array, damaged: Damaged,
                 num_threads: int) -> Index:
    if damaged == "repeat":
        raise InputError(f"--damaged repeat: {path} was appended from parts whose time stamps jump back; give one part")
    order, _ = survey(path, packets.first, False, num_threads)
    pictures = sorted(given[number] for number in order)
    index = place_in_time(path, packets, _stamps(packets, pictures, given), set())
    firsts = [bisect.bisect_left(pictures, min(given[seam:stop]))
              for seam, stop in zip(seams, [*seams[1:], len(packets)], strict=True)]
    firsts = sorted({frame for frame in firsts if 0 < frame < len(pictures)})
    lost = len(packets) - len(order)
    warning = (f"{path}: its time stamps jump back before frame {listed(firsts)}: parts that were appended to each "
               "other; each begins where the one before ends, no window crosses that place, and sound is left out"
               + (f"; {lost} frames at the start of a part cannot be decoded and are left out" if lost else ""))
    return dataclasses.replace(index, breaks=sorted({*index.breaks, *firsts}), has_clock=False,
                               description={**index.description, "order": "appended parts"},
                               warnings=[*index.warnings, warning])


def _index_by_order(path: Path, packets: Packets, seams: Sequence[int], rate: float | None, damaged: Damaged,
                    num_threads: int) -> Index:
    """Number the pictures in the order in which they are shown; they have equal intervals."""
    is_avi = packets.container == "avi" and NO_STAMP not in packets.dts
    if is_avi and rate is not None:
        raise InputError(f"--rate: {path} has a rate of its own; leave it out")
    order, bad = _find_order(path, packets, damaged, num_threads)
    chosen = Fraction(rate).limit_denominator(100_000) if rate is not None else packets.rate or ASSUMED_RATE
    stamped = [stamp for stamp in packets.pts if stamp != NO_STAMP]
    if is_avi:  # the number of a place, of which some are empty
        places, time_base = sorted(packets.dts[packets.first:]), packets.time_base
    else:
        start = round(min(stamped) * packets.time_base * chosen) if stamped else 0
        places, time_base = range(start, start + len(order)), 1 / chosen
    given = array("q", [NO_STAMP]) * len(packets)
    for number, place in zip(order, places, strict=False):
        given[number] = place
    numbered = dataclasses.replace(packets, time_base=time_base, rate=chosen, durations=array("q", [1]) * len(packets))
    index = place_in_time(path, numbered, _stamps(numbered, sorted(given[number] for number in order), given),
                    {given[number] for number in bad})
    warnings = []
    if not is_avi:
        source = "as given" if rate is not None else "as the file says" if packets.rate else "which is only assumed"
        has_stamps = len(stamped) == len(packets) and packets.container not in STREAMS_WITHOUT_TIME
        lacks = "has several frames at one time stamp" if has_stamps else "has no time stamps"
        warnings.append(f"{path}: {lacks}; its frames are read in their order, at {float(chosen):g} a second, {source}"
                        + ("" if rate is not None else "; --rate gives another"))
    if packets.first:
        warnings.append(f"{path}: begins between key frames: {packets.first} frames are left out")
    # parts that were appended to each other
    breaks = sorted({next(place for place, number in enumerate(order) if number >= seam) for seam in seams
                     if seam <= max(order)})
    if breaks:
        warnings.append(f"{path}: its time stamps jump back before frame {listed(breaks)}; no window crosses that "
                        "place, and sound is left out")
    description = {**index.description, **({} if is_avi else {"order": "by decoding"})}
    return dataclasses.replace(index, breaks=breaks or index.breaks, has_clock=not seams, description=description,
                               warnings=[*warnings, *index.warnings])


def _find_order(path: Path, packets: Packets, damaged: Damaged, num_threads: int) -> tuple[Sequence[int], set[int]]:
    """Return the numbers of the packets in the order in which their pictures are shown, and those of damaged ones."""
    is_tolerant = damaged == "repeat"
    if packets.all_keys:  # each picture by itself
        bad = find_damage(packets, *survey(path, 0, True, num_threads)) if is_tolerant else set()
        return range(len(packets)), bad
    order, failed = survey(path, packets.first, is_tolerant, num_threads)
    if failed:
        raise InputError(f"{path}: picture {min(failed)} is damaged, and without time stamps its place among the "
                         "others is not known; re-encode the file")
    return order, set()
