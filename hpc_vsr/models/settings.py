"""The ``[model]`` section of a job file: the network and how it is completed."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from hpc_vsr.system.errors import InputError

KernelAxes = Literal["published", "temporal"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
TILE = 384  # largest side in LR pixels that is computed without tiles
WHOLE_SCALES = (2, 3, 4)  # between the LR and the HR size: of data sets, fixed filters and networks
# the networks, and how much each can enlarge
SCALES = {"delta": (2,), "parallel5": (2,), "previous": (2,), "flow4x": (4,), "compact": WHOLE_SCALES}
# settings that do nothing for compact, for all others, or for all but one of the paper's networks
OF_THE_PAPER = ("n_2d", "n_3d", "depth", "recursive_streams", "num_recursive_blocks", "kernel_axes")
OF_COMPACT = ("width", "blocks")
OF_PARALLEL5 = ("features_2d",)


@dataclass(frozen=True)
class ModelSettings:
    """The network and how it is completed.

    Attributes
    ----------
    name : str
        previous: the earlier two-stage network. delta and parallel5: the paper's own. flow4x: its scheme for 4 times.
        compact: ours, which computes at LR size, for 2, 3 and 4 times.
    skip : str
        What is added to the network's output: none (as in the paper), the centre frame enlarged bicubically, or the
        same deconvolved (wiener). With a skip the last layer starts at zero, so training starts from that baseline.
    input : str
        plain: LR frames as they are (as in the paper). deconvolved: after Wiener deconvolution with the known kernel at
        LR size, which shows the network detail that the blur has made too faint to find.
    frames : int
        How many frames the network sees, 1, 3 or 5. compact takes no others; in the paper's networks, which always take
        five, the centre frame stands in for the others.
    align : bool
        Whether the neighbouring frames are moved onto the centre frame by their optical flow (DIS) before the network
        sees them. It helps where the camera or large things move, and takes about the time of compact itself.
    n_2d : int
        Depth of the 2D recursion (delta, parallel5, flow4x).
    n_3d : int
        Depth of the 3D recursion (delta, parallel5, flow4x).
    depth : str
        delta: the frames that pass through all of the 2D recursion, the centre one or the outer ones.
    recursive_streams : list of int
        parallel5: the streams, 0 to 4, that have a recursive block.
    features_2d : int
        parallel5: number of feature maps of its 2D part; the authors also have a network with 24.
    num_recursive_blocks : int
        parallel5: number of blocks that the recursive streams share, taken in turn; 0 gives each stream its own.
    width : int
        compact: number of feature maps.
    blocks : int
        compact: number of residual blocks.
    kernel_axes : str
        published: 3D kernels (5,5,3) and (1,1,3) as in the authors' code. temporal: turned to (3,5,5) and (3,1,1).
    value_range : float
        The network sees values from 0 to this on the training split: 1, or 255 as in the paper.
    output_range : list of float
        Lowest and highest output on that scale, such as [0, 255], which a sigmoid keeps; empty leaves the output free.
    init : str
        he: ours, which learns from the first step. torch: PyTorch's own, as in the paper.
    """

    name: Literal[*SCALES] = "delta"
    skip: Literal["none", "bicubic", "wiener"] = "none"
    input: Literal["plain", "deconvolved"] = "plain"
    frames: Literal[1, 3, 5] = 5
    align: bool = False
    n_2d: int = 5
    n_3d: int = 5
    depth: Literal["centre", "outer"] = "centre"
    recursive_streams: list[int] = dataclasses.field(default_factory=lambda: [2, 3])
    features_2d: int = 12
    num_recursive_blocks: int = 0
    width: int = 24
    blocks: int = 7
    kernel_axes: KernelAxes = "published"
    value_range: float = 1.0
    output_range: list[float] = dataclasses.field(default_factory=list)
    init: Literal["he", "torch"] = "he"

    def __post_init__(self):
        if not all(map(math.isfinite, [self.value_range, *self.output_range])):
            raise InputError("model: value_range and output_range must be finite numbers, "
                             f"found {self.value_range} and {self.output_range}")
        defaults = {field.name: field.default_factory() if field.default is dataclasses.MISSING else field.default
                    for field in dataclasses.fields(self)}
        for keys, owner, owns in ((OF_PARALLEL5, "parallel5", self.name == "parallel5"),
                                  (OF_COMPACT, "compact", self.name == "compact"),
                                  (OF_THE_PAPER, "the paper's networks", self.name != "compact")):
            foreign = [key for key in keys if not owns and getattr(self, key) != defaults[key]]
            if foreign:
                raise InputError(f"model.{foreign[0]}: does nothing for {self.name}, it is a setting of {owner}; "
                                 "leave it out or choose another model.name"
                                 + ("; with train.from, give model.name too" if self.name == "delta" else ""))
        if not (1 <= self.width <= 1024 and 1 <= self.blocks <= 256 and 1 <= self.features_2d <= 1024):
            raise InputError("model: width and features_2d must be 1 to 1024 and blocks 1 to 256, "
                             f"found {self.width}, {self.features_2d} and {self.blocks}")
        if self.frames != 5 and self.name == "flow4x":
            raise InputError(f"model.frames: flow4x finds the motion between five frames, found {self.frames}; "
                             "leave it out or choose another model.name")
        if self.align and (self.frames == 1 or self.name == "flow4x"):
            reason = "flow4x finds the motion itself" if self.name == "flow4x" else "frames = 1 shows no neighbour"
            raise InputError(f"model.align: {reason}; leave it out")
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
            raise InputError("model.output_range: must be empty or a lowest and a highest value, such as [0, 255], "
                             f"found {self.output_range}")
        if self.output_range and self.skip != "none":
            raise InputError(f"model.output_range: with skip {self.skip!r} the output is a correction and cannot be "
                             'kept in a range; set output_range to [] or skip to "none"')

    @property
    def uses_wiener(self) -> bool:
        return self.skip == "wiener" or self.input == "deconvolved"


def check_scale(settings: ModelSettings, scale: int) -> None:
    """Raise `InputError` if the network has another scale than the data."""
    own = SCALES[settings.name]
    if scale not in own:
        fitting = " or ".join(name for name, scales in SCALES.items() if scale in scales)
        enlarges = " or ".join(map(str, own))
        raise InputError(f"model: {settings.name} enlarges {enlarges} times, the data set is for {scale} times; "
                         f"preprocess with --degradation.scale {own[0]}, or use {fitting}")


@dataclass(frozen=True)
class Choice:
    """A precision and the reason for it.

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
