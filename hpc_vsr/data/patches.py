"""Patches for training, cut from the frames of all clips one by one or as a batch in one gather.

The n-th patch of a training run, and how it is turned, follow only from (seed, n). So the order is the same for any
number of ranks and loader workers, and a resumed run continues where it stopped.
"""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hpc_vsr.data.clips import Clips
from hpc_vsr.data.noise import add_noise
from hpc_vsr.data.samples import Split
from hpc_vsr.system.errors import Failed

LOST = 1  # LR pixels that the networks lose at each side
NOISE = 1  # tells the random numbers of the noise from those of the places
REVERSE_TIME, MIRROR_ROWS, MIRROR_COLUMNS, SWAP = 1, 2, 4, 8  # symmetries of a patch; SWAP of rows and columns


class Patch(NamedTuple):
    """A training sample with values 0..1 on the training split; in a batch each tensor has a leading B.

    Attributes
    ----------
    lr : (C, 5, p + 2 margin, q + 2 margin) Tensor
        Window of LR frames, with a margin that shows filters what lies around the patch.
    hr : (C, scale (p - 2), scale (q - 2)) Tensor
        Centre frame without the margin and without the border that the networks lose; NaN where a field has a gap.
    """

    lr: Tensor
    hr: Tensor


class Place(NamedTuple):
    """Where a patch is cut, in LR pixels and frames of its clip, and how it is turned (see `_turn`).

    `level` is the number of its blur, and `noise` that of its camera in grey levels.
    """

    clip: int
    centre: int
    top: int
    left: int
    turns: int
    level: int = 0
    noise: float = 0.0


class Patches(Dataset):
    """The endless sequence of training patches, by position.

    Parameters
    ----------
    frames : Clips or Split
        All clips, each with a share of the patches that is its share of the samples; or only one.
    size : int
        Side of a patch in LR pixels; 0 takes whole frames, which then have one size in all clips.
    margin : int
        LR pixels around a patch that a network sees besides it.
    augment : bool
        Whether to turn patches by one of the 8 symmetries of a square (4 of a rectangle) and reverse time for half.
    seed : int
    batch_size : int
        Patches of one blur and one noise, if there are several: those of a batch.
    noises : sequence of float
        Noise of a camera in grey levels, of which each batch has one; see `add_noise`.
    """

    def __init__(self, frames: Clips | Split, size: int, margin: int, augment: bool, seed: int, batch_size: int = 1,
                 noises: Sequence[float] = ()):
        self.clips = frames if isinstance(frames, Clips) else Clips.of(frames)
        self.margin, self.augment, self.seed, self.batch_size = margin, augment, seed, batch_size
        self.noises = noises or (0.0,)
        self.num_levels = self.clips.splits[0].num_levels * len(self.noises)
        sizes = {split.manifest.lr_size for split in self.clips.splits}
        assert size <= min(map(min, sizes)) and (size or len(sizes) == 1), (size, sizes)
        self.shape = (size, size) if size else next(iter(sizes))

    def __getitem__(self, position: int) -> Patch:
        """Return the patch at a position: its sample, place and turn follow from the seed and the position."""
        place = self.place(position)
        lr, hr = _turn(self._cut(place), place.turns)
        split = self.clips.splits[place.clip]
        return Patch(split.normalise(self._with_noise(lr, position, place), axis=-4), split.normalise(hr))

    def place(self, position: int) -> Place:
        """Return where the patch at a position is cut, and how it is turned."""
        epoch, index = divmod(position, len(self.clips))
        sample = int(_order(self.seed, epoch, len(self.clips))[index])
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch, sample])))
        clip, centre = self.clips.locate(sample)
        manifest = self.clips.splits[clip].manifest
        height, width = manifest.lr_size
        # where frames go on at the other side, a patch may begin anywhere
        periodic = manifest.periodic
        top = int(random.integers(height if "y" in periodic else height - self.shape[0] + 1))
        left = int(random.integers(width if "x" in periodic else width - self.shape[1] + 1))
        turns = int(random.integers(16)) if self.augment else 0
        level, noise = divmod(self.level_of(position // self.batch_size), len(self.noises))
        return Place(clip, centre, top, left, turns, level, self.noises[noise])

    def level_of(self, batch: int) -> int:
        """Return the number of the blur and noise of a batch: over as many batches as there are, each has its turn.

        It counts the blurs, and the noises within each.
        """
        turn, index = divmod(batch, self.num_levels)
        return int(_order(self.seed, turn, self.num_levels)[index]) if self.num_levels > 1 else 0

    def batch(self, positions: Sequence[int]) -> Patch:
        """Return the patches at these positions as one batch, gathered from frames in memory; see `gather`.

        They are those of `__getitem__`, to the bit.
        """
        places = [self.place(position) for position in positions]
        splits = [self.clips.splits[place.clip] for place in places]
        manifest = splits[0].manifest  # the clips differ only in size
        turns = torch.tensor([place.turns for place in places])
        # numbers of the frames, rows and columns of every patch, as they are after its turn
        numbers = torch.stack([split.window_places(torch.tensor([place.centre]), place.level)[0]
                               for split, place in zip(splits, places, strict=True)])
        numbers = torch.where(turns[:, None] & REVERSE_TIME > 0, numbers.flip(1), numbers)
        centres = torch.tensor([[place.centre - split.start] for split, place in zip(splits, places, strict=True)])
        axes = list(zip(self.shape, ("y", "x"), ([place.top for place in places], [place.left for place in places]),
                        (MIRROR_ROWS, MIRROR_COLUMNS), strict=True))
        swapped = (turns & SWAP > 0) & (self.shape[0] == self.shape[1])
        cut = []
        for name, stored, scale, margin, lost, which in (
                ("windows", [split.windows_in_memory for split in splits], 1, self.margin, 0, numbers),
                ("hr", [split.memory[1] for split in splits], manifest.scale, 0, LOST, centres)):
            flat = self.clips.flat[name]
            sizes = torch.tensor([frames.shape[-2:] for frames in stored])
            # where the channels of the frames begin: after the clips before, and after the frames before
            first = torch.tensor([frames.storage_offset() - flat.storage_offset() for frames in stored])
            channels = stored[0].shape[1]
            planes = first[:, None, None] + sizes.prod(1)[:, None, None] * (
                which[:, None] * channels + torch.arange(channels)[:, None])
            lines = [_lines(torch.tensor(starts), scale, length, margin - lost, size, axis in manifest.periodic,
                            turns & mirror > 0)
                     for (length, axis, starts, mirror), size in zip(axes, sizes.T, strict=True)]
            cut.append(gather(flat, planes, sizes[:, 1], *lines, swapped))
        if any(place.noise for place in places):
            cut[0] = torch.stack([self._with_noise(lr, position, place)
                                  for lr, position, place in zip(cut[0], positions, places, strict=True)])
        lr, hr = (splits[0].normalise(values, axis=-4) for values in cut)
        return Patch(lr, hr[:, :, 0])

    def _with_noise(self, lr: Tensor, position: int, place: Place) -> Tensor:
        """Return the LR frames of a patch, as stored, with its noise, which follows from the seed and the position."""
        return add_noise(lr, place.noise, [self.seed, position, NOISE])

    def _cut(self, place: Place) -> Patch:
        """Return a patch as stored, not yet turned."""
        (rows, columns), split = self.shape, self.clips.splits[place.clip]
        centre, top, left = place.centre, place.top, place.left
        scale = split.manifest.scale
        if split.manifest.periodic:
            size = split.manifest.hr_size
            hr = split.hr_frame(centre)
            for axis, first, length in ((1, top, rows), (2, left, columns)):
                places = torch.arange(scale * (first + 1), scale * (first + length - 1), device=hr.device)
                hr = hr.index_select(axis, places % size[axis - 1])
        else:
            hr = split.hr_frame(centre, slice(scale * (top + 1), scale * (top + rows - 1)))
            hr = hr[:, :, scale * (left + 1) : scale * (left + columns - 1)]
        return Patch(self._with_margin(split, centre, top, left, place.level).transpose(0, 1), hr)

    def _with_margin(self, split: Split, centre: int, top: int, left: int, level: int) -> Tensor:
        """Return (5, C, rows, columns) of the patch and its margin, replicated or periodic beyond the frame."""
        (rows, columns), margin, periodic = self.shape, self.margin, split.manifest.periodic
        height, width = split.manifest.lr_size
        if periodic:
            window = split.lr_window(centre, level=level)
            for axis, start, length, size in ((2, top, rows, height), (3, left, columns, width)):
                places = torch.arange(start - margin, start + length + margin, device=window.device)
                places = places % size if "_yx"[axis - 1] in periodic else places.clamp(0, size - 1)
                window = window.index_select(axis, places)
            return window
        first, last = max(top - margin, 0), min(top + rows + margin, height)
        window = split.lr_window(centre, slice(first, last), level)
        if margin == 0:
            return window[..., left : left + columns]
        take_rows = torch.arange(top - margin, top + rows + margin, device=window.device).clamp(0, height - 1) - first
        take_columns = torch.arange(left - margin, left + columns + margin, device=window.device).clamp(0, width - 1)
        return window[:, :, take_rows][:, :, :, take_columns]


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch]))).permutation(length)


def _turn(patch: Patch, turns: int) -> Patch:
    """Turn a patch by one of 16 symmetries, the sum of `REVERSE_TIME`, `MIRROR_ROWS`, `MIRROR_COLUMNS` and `SWAP`."""
    lr, hr = patch
    if turns & REVERSE_TIME:
        lr = lr.flip(1)
    sides = [side for bit, side in ((MIRROR_ROWS, -2), (MIRROR_COLUMNS, -1)) if turns & bit]
    lr, hr = lr.flip(sides), hr.flip(sides)
    if turns & SWAP and lr.shape[-1] == lr.shape[-2]:
        lr, hr = lr.transpose(-1, -2), hr.transpose(-1, -2)
    return Patch(lr.contiguous(), hr.contiguous())


def _lines(starts: Tensor, scale: int, length: int, margin: int, sizes: Tensor, is_periodic: bool, mirrored: Tensor
           ) -> Tensor:
    """Return the rows or columns of patches, (B, scale (length + 2 margin)).

    Beyond the frame, which has `sizes` of them (B,), they are replicated or periodic.
    """
    lines = scale * (starts[:, None] - margin) + torch.arange(scale * (length + 2 * margin))
    lines = torch.where(mirrored[:, None], lines.flip(1), lines)
    sizes = sizes[:, None]
    return lines % sizes if is_periodic else lines.clamp(min=0).minimum(sizes - 1)


def gather(values: Tensor, planes: Tensor, widths: Tensor, rows: Tensor, columns: Tensor, swapped: Tensor) -> Tensor:
    """Cut a batch of patches out of the frames of clips by one index, whatever the number of patches and clips.

    Parameters
    ----------
    values : (N,) Tensor
        The frames of all clips, each clip (T, C, h, w), one after the other.
    planes : (B, C, D) int64 Tensor
        Places in `values` at which the channels of the frames of each patch begin.
    widths : (B,) int64 Tensor
        w of the clip of each patch.
    rows, columns : (B, p) and (B, q) int64 Tensor
        Rows and columns of each patch.
    swapped : (B,) bool Tensor
        Patches whose rows and columns are swapped; p and q are equal then.

    Returns
    -------
    (B, C, D, p, q) Tensor
    """
    planes, widths, rows, columns, swapped = (tensor.to(values.device, non_blocking=True)
                                              for tensor in (planes, widths, rows, columns, swapped))
    # places within a frame, then those of all channels and frames
    places = rows[:, :, None] * widths[:, None, None] + columns[:, None, :]
    if rows.shape == columns.shape:
        places = torch.where(swapped[:, None, None], places.transpose(1, 2), places)
    return values[planes[..., None, None] + places[:, None, None]].contiguous()


def _leave_signals_to_parent(_worker: int) -> None:
    """Ignore the signals that SLURM sends to every process of a step.

    A worker that died of one would end the run before its checkpoint.
    """
    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def load_batches(patches: Patches, first: int, last: int, batch_size: int, rank: int, world_size: int,
                 num_workers: int, device: torch.device) -> Iterator[Patch]:
    """Yield a rank's part of the batches that the positions first..last-1 make, on its device, in order.

    A batch of `batch_size` positions is dealt to the ranks in contiguous runs of equal length.
    """
    share = batch_size // world_size
    runs = (range(start + rank * share, start + (rank + 1) * share) for start in range(first, last, batch_size))
    if patches.clips.flat:
        yield from (Patch(*(values.to(device) for values in patches.batch(run))) for run in runs)
        return
    loader = DataLoader(patches, batch_sampler=runs, num_workers=num_workers, persistent_workers=num_workers > 0,
                        pin_memory=device.type == "cuda" and num_workers > 0, worker_init_fn=_leave_signals_to_parent)
    for batch in loader:
        yield Patch(*(values.to(device, non_blocking=True) for values in batch))


@contextlib.contextmanager
def told_of_loaders() -> Iterator[None]:
    """Raise a `Failed` of one line if PyTorch reports, at any moment, that one of its loader processes has died."""
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:  # the latter from the pipe through which batches come
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise Failed(f"a loader process (train.num_workers) has died, often because memory ran out ({reason}); "
                     "run the same command again to resume it") from None
