"""A split of all clips of a data set: its samples, numbered through clip by clip."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from hpc_vsr.data.manifest import Manifest
from hpc_vsr.data.samples import Split
from hpc_vsr.data.splits import REACH, spread_evenly


class Clips:
    """One split of every clip that has it; a data set of one source is one clip.

    Parameters
    ----------
    manifest : Manifest
    split : {"train", "val", "test"}
    device : torch.device, optional
        If given, all frames are kept there; see `Split`.
    num_frames : int
        Number of the last frames that are used, of a data set of one source; 0 uses all.
    kind : callable
        Makes the split of a clip: `Split`, or another kind of it.

    Attributes
    ----------
    splits : list of Split
        The split of each clip.
    is_collection : bool
        Whether the clips have names.
    flat : dict
        {"lr", "hr", "windows": (N,) Tensor} if the frames are kept: those of all clips one after the other, of which
        the tensors of each `Split` are views. A batch of patches of different clips is one gather from them.
    """

    def __init__(self, manifest: Manifest, split: str, device: torch.device | None = None, num_frames: int = 0,
                 kind: Callable[..., Split] = Split):
        self.is_collection = manifest.is_collection
        self.splits = [kind(clip, split, None, num_frames) for clip in manifest.clips_of(split)]
        self.flat: dict[str, Tensor] = {}
        self._number()
        if device is not None:
            self._keep(device)

    @classmethod
    def of(cls, split: Split) -> Clips:
        """Return the clips of which `split` is the only one."""
        clips = cls.__new__(cls)
        clips.splits, clips.is_collection = [split], False
        clips.flat = {} if split.memory is None else {
            "lr": split.memory[0].flatten(), "hr": split.memory[1].flatten(),
            "windows": split.windows_in_memory.flatten()}
        clips._number()
        return clips

    @property
    def names(self) -> list[str]:
        """Names of the clips of a collection."""
        return [split.manifest.folder.name for split in self.splits]

    def __len__(self) -> int:
        return self._ends[-1]

    def locate(self, sample: int) -> tuple[int, int]:
        """Return the number of the clip of a sample, and its centre frame in the source of that clip."""
        number = bisect.bisect_right(self._ends, sample)
        split = self.splits[number]
        return number, split.centres[sample - self._ends[number] + len(split)]

    def spread_evenly(self, count: int) -> list[tuple[int, int]]:
        """Return (clip, centre) of up to `count` samples, at equal distances and half of one from both ends."""
        return [self.locate(sample) for sample in spread_evenly(range(len(self)), count)]

    def _number(self) -> None:
        self._ends = list(itertools.accumulate(map(len, self.splits)))

    def _keep(self, device: torch.device) -> None:
        """Copy the frames of all clips into flat tensors, allocated once at their final size."""
        shapes = [split.shapes() for split in self.splits]
        for name, (_, kind) in shapes[0].items():
            size = sum(math.prod(shape[name][0]) for shape in shapes)
            self.flat[name] = torch.empty(size, dtype=kind, device=device)
        begins = dict.fromkeys(self.flat, 0)
        for split, shape in zip(self.splits, shapes, strict=True):
            views = {}
            for name, (size, _) in shape.items():
                end = begins[name] + math.prod(size)
                views[name] = self.flat[name][begins[name] : end].view(size)
                begins[name] = end
            split.keep(views)
        self.flat.setdefault("windows", self.flat["lr"])


def validation_pairs(manifest: Manifest, num_frames: int = 8, split: Callable[..., Split] = Split
                     ) -> list[tuple[Tensor, Tensor]]:
    """Return (lr, hr) of a few centre frames over the validation split, values 0..1 on the training split.

    The LR frames are those that patches of such a `split` show.
    """
    clips = Clips(manifest, "val", kind=split)
    count = min(num_frames, len(clips))
    pairs = []
    for index in range(count):
        number, centre = clips.locate(index * len(clips) // count)
        found = clips.splits[number]
        pairs.append((found.normalise(found.lr_window(centre)[REACH]), found.normalise(found.hr_frame(centre))))
    return pairs
