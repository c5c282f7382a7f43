"""Computes large frames in tiles: the same result as the whole frame at once, in less memory.

A tile is computed with as much of its surroundings as the network sees, and then cut. At the border of the frame
nothing is added, so the network's own padding is applied where it would be without tiles.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

WINDOW = 5
PROBE = 80  # side of the first image with which a reach is measured


def upscale_by_tiles(core: Callable[[Tensor], Tensor], lr: Tensor, tile: int, reach: int, scale: int, lost: int
                     ) -> Tensor:
    """Return ``core(lr)``, computed tile by tile.

    Parameters
    ----------
    core : callable
        (B, C, D, h, w) to (B, C', scale (h - 2 lost), scale (w - 2 lost)).
    lr : (B, C, D, h, w) Tensor
    tile : int
        Side of a tile in LR pixels, without its surroundings.
    reach : int
        LR pixels around an output pixel on which it depends; see `find_reach`.
    lost : int
        LR pixels that the core loses at each side.

    Returns
    -------
    (B, C', scale (h - 2 lost), scale (w - 2 lost)) Tensor
    """
    height, width = lr.shape[-2:]
    out = None
    for top, bottom in _cuts(height, tile, lost):
        for left, right in _cuts(width, tile, lost):
            above, before = max(0, top - reach), max(0, left - reach)
            part = core(lr[..., above : bottom + reach, before : right + reach])
            if out is None:
                out = part.new_empty(*part.shape[:-2], scale * (height - 2 * lost), scale * (width - 2 * lost))
            rows, columns = (slice(scale * (start - first - lost), scale * (stop - first - lost))
                             for start, stop, first in ((top, bottom, above), (left, right, before)))
            out[..., scale * (top - lost) : scale * (bottom - lost),
                scale * (left - lost) : scale * (right - lost)] = part[..., rows, columns]
    return out


def _cuts(length: int, tile: int, lost: int) -> Iterator[tuple[int, int]]:
    """Yield parts of about equal length, at most `tile`, of the length without `lost` at both ends."""
    inner = length - 2 * lost
    count = -(-inner // tile)
    for index in range(count):
        yield lost + index * inner // count, lost + (index + 1) * inner // count


def find_reach(core: nn.Module, channels: int, scale: int, num_frames: int = WINDOW) -> int:
    """Return how many LR pixels around an output pixel it depends on.

    One input pixel is set to NaN, and the reach is how far the NaN spreads. This runs on the CPU, whose convolutions
    add up what lies under their kernel and nothing else.
    """
    core = copy.deepcopy(core).cpu().float()
    side, reach = PROBE, None
    while reach is None:
        reach = _reach_within(core, (channels, num_frames), scale, side)
        side *= 2
    return reach


def _reach_within(core: nn.Module, sizes: tuple[int, int], scale: int, side: int) -> int | None:
    """Return the reach, or None if an image of that side cannot show it; `sizes` are its channels and frames."""
    image = torch.zeros(1, *sizes, side, side)
    image[..., side // 2, side // 2] = torch.nan
    with torch.inference_mode():
        out = core(image)
    spread = out.isnan().flatten(0, 1)
    first, last = (spread.any(1) | spread.any(2)).any(0).nonzero().flatten()[[0, -1]].tolist()
    if first == 0 or last == out.shape[-1] - 1:
        return None
    lost = (side - out.shape[-1] // scale) // 2
    return max(side // 2 - (first // scale + lost), last // scale + lost - side // 2)
