"""A network of the paper, completed by its residual path, its value range and the border that its convolutions lose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc_vsr.models.align import ALIGN_WRAP, align
from hpc_vsr.models.blocks import RangeOutput, in_full
from hpc_vsr.models.core import Core
from hpc_vsr.models.enlarge import Enlarge
from hpc_vsr.models.settings import TILE
from hpc_vsr.models.tiles import find_reach, upscale_by_tiles

FLOW_WRAP = 64  # LR pixels; a multiple of what the levels of the flow's pyramid need
LOST = 1  # LR pixels that a network loses at each side


class Seen(NamedTuple):
    """A frame as a network takes it; the windows of a stream share it.

    Attributes
    ----------
    plain : (B, C, h + 2 m, w + 2 m) Tensor
        The frame, extended by replicated pixels; m is `Network.reach` and the border that the core loses.
    shown : (B, C, h + 2, w + 2) Tensor or None
        What the core sees of it: in its value range, and deconvolved if the network sharpens; None if the network moves
        the frame for each window.
    """

    plain: Tensor
    shown: Tensor | None


class Network(nn.Module):
    """Network of the paper with its residual path; its user never sees the border that the core loses.

    Values are 0..1 on the training split.

    Parameters
    ----------
    core : Core
        (B, C, 5, h, w) to (B, C, s (h - 2), s (w - 2)).
    skip : Enlarge or None
        Enlarges the centre frame, to which the core's output is added.
    sharpen : Enlarge or None
        Deconvolves the frames that the core sees.
    value_range : float
        The core sees values from 0 to this.
    limit : RangeOutput or None
        Keeps the core's output in a range.
    frames : {1, 3, 5}
        Frames in the middle of the five that the core sees. If it takes more, the centre frame is in their place.
    aligns : bool
        Whether `upscale` moves the frames onto the centre one before anything else; `forward` gets them so.

    Attributes
    ----------
    reach : int
        LR pixels around the output that `forward` needs besides the core's own; 0 for the published networks.
    core_reach : int or None
        LR pixels that the core sees around an output pixel; None until `find_core_reach` has found it.
    """

    def __init__(self, core: Core, skip: Enlarge | None, sharpen: Enlarge | None, value_range: float = 1.0,
                 limit: RangeOutput | None = None, frames: int = 5, aligns: bool = False):
        super().__init__()
        self.core, self.skip, self.sharpen, self.value_range, self.limit = core, skip, sharpen, value_range, limit
        self.frames, self.aligns = frames, aligns
        self.core_reach: int | None = None

    @property
    def reach(self) -> int:
        return max((part.reach for part in (self.skip, self.sharpen) if part is not None), default=0)

    def forward(self, lr: Tensor) -> Tensor:
        """Map (B, C, 5, h + 2 reach, w + 2 reach) to (B, C, s (h - 2), s (w - 2)); training uses this on patches."""
        return self._complete(self.core(self._core_input(lr)), _centre(lr))

    def with_core(self, lr: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output as `forward` gives it, and what the core sees and makes of it, in its range of values."""
        seen = self._core_input(lr)
        made = self.core(seen)
        return self._complete(made, _centre(lr)), seen, made

    def with_warp_error(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output as `forward` gives it, and the photometric error of the flow (only flow4x)."""
        out, error = self.core.with_warp_error(self._core_input(lr))
        return self._complete(out, _centre(lr)), error / self.value_range

    def first_stage(self, lr: Tensor) -> Tensor:
        """Return the 2D part's map of the centre frame, without the border that `forward` loses.

        (B, C, 5, h + 2 reach, w + 2 reach) to (B, C, 2 (h - 2), 2 (w - 2)).
        """
        core_input = self._core_input(lr)
        enlarged = self.core.frame_map(core_input, core_input.shape[2] // 2)
        return _trim(in_full(enlarged) / self.value_range, 2 * LOST)

    def upscale(self, lr: Tensor, tile: int = TILE) -> Tensor:
        """Map (B, C, 5, h, w) to exactly (B, C, s h, s w); the frames are first extended by replicated pixels.

        Frames with a side above `tile` LR pixels are computed in tiles, with the same result; 0 turns tiles off. The
        memory is then that of a tile and a few whole frames. A network with flow needs the whole frame and has no
        tiles.
        """
        if self.aligns:
            lr = align(self._seen_of(lr))
        lr = self._extend(lr)
        return self._compute(self._core_input(lr), _centre(lr), tile)

    def prepare(self, frame: Tensor) -> Seen:
        """Return a (B, C, h, w) frame as `upscale_seen` takes it; in a stream this is done once for each frame."""
        plain = F.pad(frame, (self.reach + LOST,) * 4, mode="replicate")
        return Seen(plain, None if self.aligns else self._show(plain))

    def upscale_seen(self, frames: Sequence[Seen], tile: int = TILE) -> Tensor:
        """Return the same as `upscale`, from the prepared frames of the window that the network sees."""
        assert len(frames) == self.frames, (len(frames), self.frames)
        if self.aligns:  # what the core sees of a frame differs from window to window
            return self.upscale(torch.stack([_trim(frame.plain, self.reach + LOST) for frame in frames], 2), tile)
        core_input = self._fill_up(torch.stack([frame.shown for frame in frames], 2))
        return self._compute(core_input, frames[self.frames // 2].plain, tile)

    def find_core_reach(self, channels: int) -> int | None:
        """Return the LR pixels that the core sees around an output pixel, found once; None for a network with flow."""
        if self.core_reach is None and not self.has_flow:
            self.core_reach = find_reach(self.core, channels, self.core.scale, self.core.num_frames)
        return self.core_reach

    def find_wrap(self, channels: int) -> int:
        """Return the LR pixels that a frame needs at each side where it goes on at the other side.

        This is as far as the network sees, so that there is no seam. A network with flow sees the whole frame; the
        flow at a pixel hardly depends on what is further away than this, and so it is with frames that are moved.
        """
        moved = ALIGN_WRAP if self.aligns else 0
        return self.reach + LOST + moved + (FLOW_WRAP if self.has_flow else self.find_core_reach(channels))

    def upscale_first_stage(self, lr: Tensor) -> Tensor:
        """Return `first_stage` of extended frames: (B, C, 5, h, w) to (B, C, 2h, 2w)."""
        return self.first_stage(self._extend(lr))

    @property
    def has_flow(self) -> bool:
        return self.core.has_flow

    def flows(self, lr: Tensor) -> dict[int, Tensor]:
        """Return {position: flow from the centre frame to that frame} of flow4x, (B, 2, 4h, 4w) in HR pixels."""
        _, pyramids = self.core.move(self._core_input(self._extend(lr)))
        cut = 2 * LOST  # the margin that `_core_input` leaves, at twice the size
        return {position: 2 * F.interpolate(_trim(flows[-1], cut), scale_factor=2, mode="bilinear", align_corners=False)
                for position, flows in pyramids.items()}

    def _extend(self, lr: Tensor) -> Tensor:
        return F.pad(lr, (self.reach + LOST,) * 4 + (0, 0), mode="replicate")

    def _core_input(self, lr: Tensor) -> Tensor:
        """Return what the core sees of a window: (B, C, 5, h, w) to (B, C, D, h - 2 reach, w - 2 reach)."""
        frames = self._seen_of(lr).transpose(1, 2)  # B, frames, C, h, w
        return self._fill_up(self._show(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2))

    def _seen_of(self, lr: Tensor) -> Tensor:
        """Return the frames of a (B, C, D, h, w) window that the core sees."""
        unseen = (lr.shape[2] - self.frames) // 2
        return lr[:, :, unseen : unseen + self.frames]

    def _show(self, frames: Tensor) -> Tensor:
        """Return (B, C, h, w) frames in the core's value range, deconvolved if the network sharpens them."""
        if self.sharpen is None:
            shown = _trim(frames, self.reach)
        else:
            shown = self.sharpen.at_lr_size(_trim(frames, self.reach - self.sharpen.reach))
        return shown * self.value_range

    def _fill_up(self, frames: Tensor) -> Tensor:
        """Put the centre frame in the place of the frames that the core takes and the network does not see."""
        missing = (self.core.num_frames - self.frames) // 2
        centre = [self.frames // 2] * missing
        return frames[:, :, [*centre, *range(self.frames), *centre]] if missing else frames

    def _compute(self, core_input: Tensor, centre: Tensor, tile: int) -> Tensor:
        """Return the enlarged centre frame, computed in tiles if it has a side above `tile` LR pixels."""
        if not tile or self.has_flow or max(core_input.shape[-2:]) - 2 * LOST <= tile:
            return self._complete(self.core(core_input), centre)
        reach = self.find_core_reach(core_input.shape[1])
        out = upscale_by_tiles(self.core, core_input, tile, reach, self.core.scale, LOST)
        return self._complete(out, centre)

    def _complete(self, out: Tensor, centre: Tensor) -> Tensor:
        """Return the core's output in values 0..1, added to the residual path if there is one."""
        out = (out if self.limit is None else self.limit(out)) / self.value_range
        if self.skip is None:
            return out
        return in_full(out) + self.skip.inner(_trim(centre, self.reach - self.skip.reach + LOST))


def _centre(window: Tensor) -> Tensor:
    """Return the frame in the middle of a (B, C, D, h, w) window."""
    return window[:, :, window.shape[2] // 2]


def _trim(frames: Tensor, margin: int) -> Tensor:
    """Cut `margin` pixels from each side."""
    return frames[..., margin : frames.shape[-2] - margin, margin : frames.shape[-1] - margin]
