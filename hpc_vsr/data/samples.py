"""Samples of a data set: whole windows for evaluation, patches for training.

The n-th patch of a training run, and how it is turned, follow only from (seed, n). So the order is the same for any
number of ranks and loader workers, and a resumed run continues where it stopped.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hpc_vsr.data.manifest import Manifest
from hpc_vsr.data.reader import ShardReader
from hpc_vsr.data.splits import REACH
from hpc_vsr.data.values import to_unit
from hpc_vsr.system.errors import Failed, InputError
from hpc_vsr.system.memory import free_memory

FRAMES_AT_ONCE = 64  # frames copied in one step, for shards of any size


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


class Split:
    """Frames of one split by their number in the source, from shards or from memory.

    Parameters
    ----------
    manifest : Manifest
    split : {"train", "val", "test"}
    device : torch.device, optional
        If given, all frames are kept there as stored; otherwise they are read from the shards at each use.
    num_frames : int
        Number of its last frames that are used; 0 uses all.

    Attributes
    ----------
    centres : list of int
        Centre frames of its windows, ascending; none lies within two frames of a gap or an end.
    """

    def __init__(self, manifest: Manifest, split: str, device: torch.device | None = None, num_frames: int = 0):
        self.manifest, self.name = manifest, split
        entries = manifest.shards(split)
        if not entries:
            raise InputError(f"{manifest.folder}: has no split {split!r}; it has: "
                             f"{', '.join(manifest.info.splits)}")
        self._readers = [ShardReader(manifest.folder / entry.name, entry.first_frame, entry.stop_frame)
                         for entry in entries]
        self.start, self.stop = self._readers[0].start, self._readers[-1].stop
        self.first = self.stop - num_frames if num_frames else self.start
        self.centres = [centre for entry in entries
                        for centre in range(max(self.first, entry.first_frame) + REACH, entry.stop_frame - REACH)]
        if not self.centres:
            raise InputError(f"train.num_frames: the last {num_frames} frames of the split have no window without a "
                             "gap; give more")
        self._memory: tuple[Tensor, Tensor] | None = None
        if device is not None:
            self._memory = self._load(device)

    def __len__(self) -> int:
        return len(self.centres)

    def lr_frames(self, start: int, stop: int, rows: slice = slice(None)) -> Tensor:
        """Return rows of the LR frames start..stop-1, (stop - start, C, rows, w) as stored; at most a window."""
        if self._memory is not None:
            return self._memory[0][start - self.start : stop - self.start, :, rows]
        return torch.from_numpy(self._reader_of(start, stop).lr(start, stop, rows))

    def hr_frame(self, index: int, rows: slice = slice(None)) -> Tensor:
        """Return rows of the HR frame `index`, (C, rows, W) as stored; NaN where the source had no value."""
        if self._memory is not None:
            return self._memory[1][index - self.start, :, rows]
        return torch.from_numpy(self._reader_of(index, index + 1).hr(index, index + 1, rows))[0]

    def window(self, centre: int) -> Tensor:
        """Return the (C, 5, h, w) LR frames around a centre, values 0..1 on the training split."""
        return self.normalise(self.lr_frames(centre - REACH, centre + REACH + 1)).transpose(0, 1)

    def normalise(self, values: Tensor) -> Tensor:
        """Convert stored values to float32, 0..1 on the training split."""
        return to_unit(values, self.manifest.offset, self.manifest.extent)

    def _reader_of(self, start: int, stop: int) -> ShardReader:
        return next(reader for reader in self._readers if reader.start <= start and stop <= reader.stop)

    def _load(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Copy all frames into two tensors, allocated once at their final size."""
        manifest, position = self.manifest, self.start
        kind = torch.uint8 if manifest.is_8bit else torch.float32
        lr, hr = (torch.empty((self._readers[-1].stop - self.start, len(manifest.channels), *size), dtype=kind,
                              device=device) for size in (manifest.lr_size, manifest.hr_size))
        for reader in self._readers:  # neighbours overlap, so start where the last one ended, or after a gap
            position = max(position, reader.start)
            while position < reader.stop:
                stop = min(position + FRAMES_AT_ONCE, reader.stop)
                here = slice(position - self.start, stop - self.start)
                lr[here] = torch.from_numpy(reader.lr(position, stop))
                hr[here] = torch.from_numpy(reader.hr(position, stop))
                position = stop
        return lr, hr


def validation_pairs(manifest: Manifest, num_frames: int = 8, split: type[Split] = Split
                     ) -> list[tuple[Tensor, Tensor]]:
    """Return (lr, hr) of a few centre frames over the validation split, values 0..1 on the training split."""
    split = split(manifest, "val")
    count = min(num_frames, len(split))
    centres = [split.centres[index * len(split) // count] for index in range(count)]
    return [(split.normalise(split.lr_frames(centre, centre + 1)[0]), split.normalise(split.hr_frame(centre)))
            for centre in centres]


def num_bytes(manifest: Manifest, split: str) -> int:
    """Return the bytes of a split's frames in memory."""
    entries = manifest.shards(split)
    return (entries[-1].stop_frame - entries[0].first_frame) * manifest.info.bytes_per_frame


def choose_memory(manifest: Manifest, resident: str, device: torch.device, ranks_per_node: int
                  ) -> torch.device | None:
    """Return the device that keeps the training frames, or None to read them from the shards.

    ``auto`` keeps them on a GPU if they take at most half of its free memory. On a CPU it keeps them if they take, for
    all ranks of the node, at most a quarter of the machine's memory and at most half of what is free of it and of the
    job's share.
    """
    if resident != "auto":
        return device if resident == "always" else None
    wanted = num_bytes(manifest, "train")
    if device.type == "cuda":
        return device if wanted <= torch.cuda.mem_get_info(device)[0] // 2 else None
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = free_memory()
    limit = min(machine // 4, machine if free is None else free // 2)
    return device if wanted * ranks_per_node <= limit else None


class Patches(Dataset):
    """The endless sequence of training patches, by position.

    Parameters
    ----------
    frames : Split
    size : int
        Side of a patch in LR pixels; 0 takes whole frames.
    margin : int
        LR pixels around a patch that a network sees besides it.
    augment : bool
        Whether to turn patches by one of the 8 symmetries of a square (4 of a rectangle) and reverse time for half.
    seed : int
    """

    def __init__(self, frames: Split, size: int, margin: int, augment: bool, seed: int):
        height, width = frames.manifest.lr_size
        assert size <= min(height, width), (size, height, width)
        self.frames, self.margin, self.augment, self.seed = frames, margin, augment, seed
        self.shape = (size, size) if size else (height, width)

    def __getitem__(self, position: int) -> Patch:
        """Return the patch at a position: its sample, place and turn follow from the seed and the position."""
        epoch, index = divmod(position, len(self.frames))
        sample = int(_order(self.seed, epoch, len(self.frames))[index])
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch, sample])))
        height, width = self.frames.manifest.lr_size
        # where frames go on at the other side, a patch may begin anywhere
        periodic = self.frames.manifest.periodic
        top = int(random.integers(height if "y" in periodic else height - self.shape[0] + 1))
        left = int(random.integers(width if "x" in periodic else width - self.shape[1] + 1))
        patch = self._cut(self.frames.centres[sample], top, left)
        if not self.augment:
            return patch
        turns = int(random.integers(16))
        return _turn(patch, turns)

    def _cut(self, centre: int, top: int, left: int) -> Patch:
        rows, columns = self.shape
        scale = self.frames.manifest.scale
        if self.frames.manifest.periodic:
            size = self.frames.manifest.hr_size
            hr = self.frames.hr_frame(centre)
            for axis, first, length in ((1, top, rows), (2, left, columns)):
                places = torch.arange(scale * (first + 1), scale * (first + length - 1), device=hr.device)
                hr = hr.index_select(axis, places % size[axis - 1])
        else:
            hr = self.frames.hr_frame(centre, slice(scale * (top + 1), scale * (top + rows - 1)))
            hr = hr[:, :, scale * (left + 1) : scale * (left + columns - 1)]
        lr = self._with_margin(centre, top, left).transpose(0, 1)
        return Patch(self.frames.normalise(lr), self.frames.normalise(hr))

    def _with_margin(self, centre: int, top: int, left: int) -> Tensor:
        """Return (5, C, rows, columns) of the patch and its margin, replicated or periodic beyond the frame."""
        (rows, columns), margin, periodic = self.shape, self.margin, self.frames.manifest.periodic
        height, width = self.frames.manifest.lr_size
        if periodic:
            window = self.frames.lr_frames(centre - REACH, centre + REACH + 1)
            for axis, start, length, size in ((2, top, rows, height), (3, left, columns, width)):
                places = torch.arange(start - margin, start + length + margin, device=window.device)
                places = places % size if "_yx"[axis - 1] in periodic else places.clamp(0, size - 1)
                window = window.index_select(axis, places)
            return window
        first, last = max(top - margin, 0), min(top + rows + margin, height)
        window = self.frames.lr_frames(centre - REACH, centre + REACH + 1, slice(first, last))
        if margin == 0:
            return window[..., left : left + columns]
        take_rows = torch.arange(top - margin, top + rows + margin, device=window.device).clamp(0, height - 1) - first
        take_columns = torch.arange(left - margin, left + columns + margin, device=window.device).clamp(0, width - 1)
        return window[:, :, take_rows][:, :, :, take_columns]


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch]))).permutation(length)


def _turn(patch: Patch, turns: int) -> Patch:
    """Turn a patch by one of 16 symmetries.

    The bits of `turns` are: reverse time, mirror rows, mirror columns, swap rows and columns (if square).
    """
    lr, hr = patch
    if turns & 1:
        lr = lr.flip(1)
    sides = [side for bit, side in ((2, -2), (4, -1)) if turns & bit]
    lr, hr = lr.flip(sides), hr.flip(sides)
    if turns & 8 and lr.shape[-1] == lr.shape[-2]:
        lr, hr = lr.transpose(-1, -2), hr.transpose(-1, -2)
    return Patch(lr.contiguous(), hr.contiguous())


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
