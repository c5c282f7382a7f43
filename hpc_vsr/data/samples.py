"""Frames of a split of one clip: from the shards, or from memory."""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor

from hpc_vsr.data.manifest import Manifest
from hpc_vsr.data.reader import ShardReader
from hpc_vsr.data.splits import REACH, WINDOW
from hpc_vsr.data.values import to_unit
from hpc_vsr.system.errors import InputError
from hpc_vsr.system.memory import free_memory

BYTES_OF_FLOAT = 4
FRAMES_AT_ONCE = 64  # frames copied in one step, for shards of any size


class Split:
    """Frames of one split by their number in the source, from shards or from memory.

    Parameters
    ----------
    manifest : Manifest
        A data set of one source, or a clip of a collection.
    split : {"train", "val", "test"}
    device : torch.device, optional
        If given, all frames are kept there as stored; otherwise they are read from the shards at each use.
    num_frames : int
        Number of its last frames that are used; 0 uses all.

    Attributes
    ----------
    centres : list of int
        Centre frames of its windows, ascending; none lies within two frames of a gap or an end.
    memory : pair of (T, C, h, w) and (T, C, H, W) Tensor, or None
        LR and HR frames from `start` on, if they are kept.
    """

    def __init__(self, manifest: Manifest, split: str, device: torch.device | None = None, num_frames: int = 0):
        self.manifest, self.name = manifest, split
        entries = manifest.clips_of(split)[0].shards(split)
        self._readers = [ShardReader(manifest.folder / entry.name, entry.first_frame, entry.stop_frame)
                         for entry in entries]
        self.start, self.stop = self._readers[0].start, self._readers[-1].stop
        self.first = self.stop - num_frames if num_frames else self.start
        self.centres = [centre for entry in entries
                        for centre in range(max(self.first, entry.first_frame) + REACH, entry.stop_frame - REACH)]
        if not self.centres:
            raise InputError(f"train.num_frames: the last {num_frames} frames of the split have no window without a "
                             "gap; give more")
        self.memory: tuple[Tensor, Tensor] | None = None
        if device is not None:
            self.keep({name: torch.empty(shape, dtype=kind, device=device)
                       for name, (shape, kind) in self.shapes().items()})

    def __len__(self) -> int:
        return len(self.centres)

    def lr_frames(self, start: int, stop: int, rows: slice = slice(None)) -> Tensor:
        """Return rows of the LR frames start..stop-1, (stop - start, C, rows, w) as stored; at most a window."""
        if self.memory is not None:
            return self.memory[0][start - self.start : stop - self.start, :, rows]
        return torch.from_numpy(self._reader_of(start, stop).lr(start, stop, rows))

    def hr_frame(self, index: int, rows: slice = slice(None)) -> Tensor:
        """Return rows of the HR frame `index`, (C, rows, W) as stored; NaN where a channel had no value."""
        if self.memory is not None:
            return self.memory[1][index - self.start, :, rows]
        return torch.from_numpy(self._reader_of(index, index + 1).hr(index, index + 1, rows))[0]

    @property
    def num_levels(self) -> int:
        """Number of blurs that patches are cut from."""
        return 1

    def lr_window(self, centre: int, rows: slice = slice(None), level: int = 0) -> Tensor:
        """Return rows of the LR frames around a centre as patches show them, (5, C, rows, w) as stored.

        `level` is the number of their blur.
        """
        assert level == 0, level
        return self.lr_frames(centre - REACH, centre + REACH + 1, rows)

    def window_places(self, centres: Tensor, level: int = 0) -> Tensor:
        """Return the places of the LR frames around centres, (B,) int64, in the memory for windows: (B, 5)."""
        return centres[:, None] - self.start + torch.arange(-REACH, REACH + 1)

    @property
    def windows_in_memory(self) -> Tensor:
        """LR frames in memory, (N, C, h, w), in which `window_places` counts."""
        return self.memory[0]

    def window(self, centre: int) -> Tensor:
        """Return the (C, 5, h, w) LR frames around a centre, values 0..1 on the training split."""
        return self.normalise(self.lr_frames(centre - REACH, centre + REACH + 1)).transpose(0, 1)

    def normalise(self, values: Tensor, axis: int = -3) -> Tensor:
        """Convert stored values to float32, 0..1 on the training split; the channels lie along `axis`."""
        return to_unit(values, self.manifest.offset, self.manifest.extent, axis)

    def _reader_of(self, start: int, stop: int) -> ShardReader:
        return next(reader for reader in self._readers if reader.start <= start and stop <= reader.stop)

    def shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Return (shape, dtype) of each tensor that `keep` fills: "lr" and "hr"."""
        manifest = self.manifest
        kind = torch.uint8 if manifest.is_8bit else torch.float32
        return {name: ((self.stop - self.start, len(manifest.channels), *size), kind)
                for name, size in (("lr", manifest.lr_size), ("hr", manifest.hr_size))}

    def keep(self, tensors: dict[str, Tensor]) -> None:
        """Copy all frames into tensors of these `shapes`, and use them from now on."""
        position, lr, hr = self.start, tensors["lr"], tensors["hr"]
        for reader in self._readers:  # neighbours overlap, so start where the last one ended, or after a gap
            position = max(position, reader.start)
            while position < reader.stop:
                stop = min(position + FRAMES_AT_ONCE, reader.stop)
                here = slice(position - self.start, stop - self.start)
                lr[here] = torch.from_numpy(reader.lr(position, stop))
                hr[here] = torch.from_numpy(reader.hr(position, stop))
                position = stop
        self.memory = lr, hr


def num_bytes(manifest: Manifest, split: str, aligned: bool = False, num_blurs: int = 0) -> int:
    """Return the bytes of a split's frames in memory, with the windows of an `AlignedSplit` if they are aligned.

    `num_blurs` is the number of blurs of a `BlurredSplit`.
    """
    return sum(_num_bytes_of_clip(clip, split, aligned, num_blurs) for clip in manifest.clips_of(split))


def _num_bytes_of_clip(manifest: Manifest, split: str, aligned: bool, num_blurs: int) -> int:
    entries, pixel = manifest.shards(split), 1 if manifest.is_8bit else BYTES_OF_FLOAT
    frames = (entries[-1].stop_frame - entries[0].first_frame) * (
        manifest.info.bytes_per_frame + num_blurs * pixel * len(manifest.channels) * math.prod(manifest.lr_size))
    if not aligned:
        return frames
    windows = sum(entry.stop_frame - entry.first_frame - 2 * REACH for entry in entries)
    return frames + windows * WINDOW * len(manifest.channels) * math.prod(manifest.lr_size) * BYTES_OF_FLOAT


def choose_memory(manifest: Manifest, resident: str, device: torch.device, ranks_per_node: int, aligned: bool = False,
                  num_blurs: int = 0) -> torch.device | None:
    """Return the device that keeps the training frames, or None to read them from the shards.

    ``auto`` keeps them on a GPU if they take at most half of its free memory. On a CPU it keeps them if they take, for
    all ranks of the node, at most a quarter of the machine's memory and at most half of what is free of it and of the
    job's share.
    """
    if resident != "auto":
        return device if resident == "always" else None
    wanted = num_bytes(manifest, "train", aligned, num_blurs)
    if device.type == "cuda":
        return device if wanted <= torch.cuda.mem_get_info(device)[0] // 2 else None
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = free_memory()
    limit = min(machine // 4, machine if free is None else free // 2)
    return device if wanted * ranks_per_node <= limit else None
