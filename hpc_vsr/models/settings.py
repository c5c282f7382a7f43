"""Which network, and how it is completed: the ``[model]`` section of a job file."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from hpc_vsr.system.errors import InputError

KernelAxes = Literal["published", "temporal"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
TILE = 384  # side in LR pixels; larger frames are computed in tiles
SCALES = {"delta": 2, "parallel5": 2, "previous": 2, "flow4x": 4}


@dataclass(frozen=True)
class ModelSettings:
    """Which network, and how it is completed.

    Attributes
    ----------
    name : str
        previous: the earlier two-stage network. delta and parallel5: the report's own. flow4x: its scheme for 4 times.
    skip : str
        What the network's output is added to: none (the report's), the centre frame enlarged bicubically, or enlarged
        and deconvolved (wiener). With a skip the last layer starts at zero, so training starts from that baseline.
    input : str
        plain: LR frames as they are (the report's). deconvolved: after Wiener deconvolution with the known kernel at LR
        size, which shows the network the detail that the blur has made too faint for it to find.
    n_2d : int
        Depth of the 2D recursion (delta, parallel5, flow4x).
    n_3d : int
        Depth of the 3D recursion (delta, parallel5, flow4x).
    depth : str
        delta: which frames pass through all of the 2D recursion, the centre one or the outer ones.
    recursive_streams : list of int
        parallel5: which of the streams 0 to 4 have a recursive block.
    num_recursive_blocks : int
        parallel5: how many blocks the recursive streams share, taken in turn; 0 gives each stream its own.
    kernel_axes : str
        published: 3D kernels (5,5,3) and (1,1,3) as in the authors' code. temporal: turned to (3,5,5) and (3,1,1).
    value_range : float
        Values that the network sees are 0 to this on the training split: 1, or 255 as in the report.
    output_range : list of float
        Lowest and highest value of the output in these values, kept by a sigmoid, such as [0, 255]; empty leaves the
        output free.
    init : str
        he: ours, which learns from the first step. torch: PyTorch's own, as in the report.
    """

    name: Literal["delta", "parallel5", "previous", "flow4x"] = "delta"
    skip: Literal["none", "bicubic", "wiener"] = "none"
    input: Literal["plain", "deconvolved"] = "plain"
    n_2d: int = 5
    n_3d: int = 5
    depth: Literal["centre", "outer"] = "centre"
    recursive_streams: list[int] = dataclasses.field(default_factory=lambda: [2, 3])
    num_recursive_blocks: int = 0
    kernel_axes: KernelAxes = "published"
    value_range: float = 1.0
    output_range: list[float] = dataclasses.field(default_factory=list)
    init: Literal["he", "torch"] = "he"

    def __post_init__(self):
        if not all(map(math.isfinite, [self.value_range, *self.output_range])):
            raise InputError("model: value_range and output_range must be finite numbers, "
                             f"found {self.value_range} and {self.output_range}")
        if min(self.n_2d, self.n_3d) < 1:
            raise InputError(f"model: n_2d and n_3d must be at least 1, found {self.n_2d} and {self.n_3d}")
        if len(set(self.recursive_streams) & set(range(5))) != len(self.recursive_streams):
            raise InputError("model.recursive_streams: must be different numbers from 0 to 4, "
                             f"found {self.recursive_streams}")
        if not 0 <= self.num_recursive_blocks <= len(self.recursive_streams):
            raise InputError(f"model.num_recursive_blocks: must be 0 to {len(self.recursive_streams)}, the number of "
                             f"recursive streams, found {self.num_recursive_blocks}")
        if not self.value_range > 0:
            raise InputError(f"model.value_range: must be positive, found {self.value_range}")
        if self.output_range and not (len(self.output_range) == 2 and self.output_range[0] < self.output_range[1]):
            raise InputError("model.output_range: must be empty or the lowest and the highest value, such as [0, 255], "
                             f"found {self.output_range}")
        if self.output_range and self.skip != "none":
            raise InputError(f"model.output_range: with skip {self.skip!r} the output is a correction and cannot be "
                             'kept in a range; set output_range to [] or skip to "none"')

    @property
    def uses_wiener(self) -> bool:
        return self.skip == "wiener" or self.input == "deconvolved"

    @property
    def scale(self) -> int:
        return SCALES[self.name]


def check_scale(settings: ModelSettings, scale: int) -> None:
    """Raise `InputError` if the network has another scale than the data."""
    if scale != settings.scale:
        fitting = " or ".join(name for name, own in SCALES.items() if own == scale)
        raise InputError(f"model: {settings.name} enlarges {settings.scale} times, the data set is for {scale} times; "
                         f"preprocess with --degradation.scale {settings.scale}, or use {fitting}")


@dataclass(frozen=True)
class Choice:
    """A precision and why it was chosen.

    Attributes
    ----------
    precision : {"fp32", "bf16", "fp16"}
    reason : str
    device : str
        Name of the processor or the GPU for which it was chosen.
    """

    precision: str
    reason: str
    device: str

    def __str__(self) -> str:
        return f"precision {self.precision}: {self.reason}"
