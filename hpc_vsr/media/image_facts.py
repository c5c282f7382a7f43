"""Says what was understood of images from their headers and names, before the work begins."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from hpc_vsr.media.clip_files import folders_of_images
from hpc_vsr.media.depth import STORED, Depth
from hpc_vsr.media.image_file import ImageFrame
from hpc_vsr.media.numbering import Numbering, find_gaps
from hpc_vsr.media.order import Order
from hpc_vsr.media.reading import Facts
from hpc_vsr.media.tiff_file import AXES


def find_facts(frames: Sequence[ImageFrame], labels: Sequence[str], order: Order, depth: Depth | None,
               is_given: bool) -> Facts:
    """Return the breaks, lines and warnings of images.

    Parameters
    ----------
    frames : sequence of ImageFrame
    labels : sequence of str
        How each file labels the direction of its pages.
    order : Order
        Of the files.
    depth : Depth, optional
        None for float images.
    is_given : bool
        Whether the user gave the significant bits.
    """
    numbering = find_gaps(order.names)
    firsts = {path: index for index, path in reversed(list(enumerate(frame.path for frame in frames)))}
    breaks = sorted(firsts[order.paths[file]] for file in {*numbering.gaps, *numbering.starts})
    lines = [_content(frames), *_order(order, numbering), *_pages(frames, labels), *_depth(frames, depth, is_given)]
    if turned := sum(frame.header.orientation > 1 for frame in frames):
        lines.append(f"orientation: {turned} of {len(frames)} are turned upright, as their headers say")
    if inverted := sum(frame.header.min_is_white for frame in frames):
        lines.append(f"white is 0: {inverted} of {len(frames)} are inverted, as their headers say")
    return Facts(breaks=tuple(breaks), lines=tuple(lines),
                 warnings=tuple([*_warn_of_folders(order), *_warn_of_order(order, numbering),
                                 *_warn_of_labels(order, labels), *_warn_of_depth(order, frames, depth, is_given),
                                 *_warn_of_colours(order, frames)]))


def _content(frames: Sequence[ImageFrame]) -> str:
    first = frames[0].header
    height, width = first.size
    gray = sum(frame.header.is_gray for frame in frames)
    colours = "gray" if gray == len(frames) else "RGB" if gray == 0 else f"RGB, {gray} of them gray"
    return f"images: {len(frames)} of {width}x{height} {first.dtype}, {colours}"


def _order(order: Order, numbering: Numbering) -> list[str]:
    if len(order.paths) == 1:
        return []
    sort = "decimal numbers" if order.as_decimals and any(
        number % 1 for name in order.names for number in name.numbers) else "numbers"
    lines = [f"order: by the {sort} in the names, {order.paths[0].name} to {order.paths[-1].name}"]
    if not numbering.is_regular:
        lines.append("missing images: not looked for, because the names do not count regularly")
    elif not numbering.gaps:
        lines.append("missing images: none")
    return lines


def _pages(frames: Sequence[ImageFrame], labels: Sequence[str]) -> list[str]:
    if len(frames) == len(labels):
        return []
    return [f"pages: {len(frames)} in {len(labels)} file{'s' * (len(labels) > 1)}, each a frame"]


def _depth(frames: Sequence[ImageFrame], depth: Depth | None, is_given: bool) -> list[str]:
    if depth is None:
        return ["depth: float, whose white is not known: a data set keeps the values as they are, as those of a field, "
                "and they cannot be upscaled"]
    if frames[0].header.dtype == "uint8":
        return []
    source = "as given" if is_given else "declared" if frames[0].header.bits < STORED else "found in the values"
    return [f"depth: {depth.bits} bits {source}, white is {depth.white}; grey levels 0..255 with fractions"]


def list_few(paths: Sequence[Path]) -> str:
    """Return the names of the first of some paths, as text."""
    return ", ".join(path.name for path in paths[:3]) + ", ..." * (len(paths) > 3)


def _warn_of_folders(order: Order) -> list[str]:
    folder = order.paths[0].parent
    inside = folders_of_images(folder) if len(order.paths) > 1 else []  # one path may be a file that the user gave
    if not inside:
        return []
    return [f"{folder}: only its own images are taken; the folders in it have images too ({list_few(inside)})"]


def _warn_of_order(order: Order, numbering: Numbering) -> list[str]:
    folder, warnings = order.paths[0].parent, []
    if order.doubt:
        kind = "decimal numbers" if order.as_decimals else "whole numbers with a point between them"
        warnings.append(f"{folder}: the names may be meant otherwise; they are read as {kind}: {order.doubt}. If that "
                        "is wrong, write them with the same number of digits")
    for places, text in ((numbering.gaps, "numbers are missing in the names"),
                         (numbering.starts, "the names are of several series")):
        if places:
            before, after = (order.paths[place].name for place in (places[0] - 1, places[0]))
            more = f", and at {len(places) - 1} more places" if len(places) > 1 else ""
            warnings.append(f"{folder}: {text}: after {before} comes {after}{more}; no window of frames crosses that")
    alike = next((pair for pair in itertools.pairwise(range(len(order.names)))
                  if order.names[pair[0]] == order.names[pair[1]]), None)
    if alike:
        warnings.append(f"{folder}: {' and '.join(order.paths[place].name for place in alike)} have the same number")
    return warnings


def _warn_of_labels(order: Order, labels: Sequence[str]) -> list[str]:
    found = next((index for index, label in enumerate(labels) if label in AXES and label != "T"), None)
    if found is None:
        return []
    return [f"{order.paths[found]}: calls its pages {AXES[labels[found]]} ({labels[found]}); they are read as frames "
            "that follow each other in time"]


def _warn_of_depth(order: Order, frames: Sequence[ImageFrame], depth: Depth | None, is_given: bool) -> list[str]:
    header = frames[0].header
    if depth is None or header.dtype != "uint16" or is_given or depth.bits == STORED or header.bits < STORED:
        return []
    return [f"{order.paths[0].parent}: no value of these 16-bit images uses more than {depth.bits} bits, so white is "
            f"taken to be {depth.white}; if it is another, give --bits (16: white is 65535)"]


def _warn_of_colours(order: Order, frames: Sequence[ImageFrame]) -> list[str]:
    folder, warnings = order.paths[0].parent, []
    gray = [frame.name for frame in frames if frame.header.is_gray]
    if 0 < len(gray) < len(frames):
        warnings.append(f"{folder}: {len(gray)} of {len(frames)} images are gray, such as {gray[0]}, and the others "
                        "RGB; all are read as RGB")
    if alpha := sum(frame.header.has_alpha for frame in frames):
        warnings.append(f"{folder}: {alpha} of {len(frames)} images have transparency: a data set leaves it out, and "
                        "upscaling enlarges it by interpolation")
    return warnings
