"""The variants of `compact` that `variants.py` compares: what a network sees, its blocks, and its structure."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from variant_splits import noisy_split  # noqa: E402

from hpc_vsr.data.aligned import AlignedSplit  # noqa: E402
from hpc_vsr.data.samples import Split  # noqa: E402
from hpc_vsr.models.compact import BLOCK_GAIN, Block, Compact  # noqa: E402
from hpc_vsr.models.network import Network  # noqa: E402

BASE = {"width": 32, "num_blocks": 4}


# ---- what a network sees ----

class Seeing(Network):
    """A network that sees other things than deconvolved frames, or others beside them, as further channels."""

    sees = "deconvolved"

    @property
    def reach(self) -> int:
        return max(super().reach, self.softer.reach) if self.sees == "two noises" else super().reach

    def _core_input(self, lr: Tensor) -> Tensor:
        sharp = super()._core_input(lr)
        first = (lr.shape[2] - self.frames) // 2
        plain = cut(lr[:, :, first : first + self.frames], self.reach) * self.value_range
        match self.sees:
            case "plain":
                return plain
            case "both":
                return torch.cat([sharp, plain], 2)
            case "centre plain":
                middle = self.frames // 2
                return torch.cat([sharp, plain[:, :, middle : middle + 1]], 2)
            case "phases":
                return torch.cat([sharp, self._phases(lr)], 2)
            case "only phases":
                return self._phases(lr)
            case "two noises":
                return torch.cat([sharp, self._softer(lr)], 2)
        return sharp

    def _phases(self, lr: Tensor) -> Tensor:
        """Return every pixel of the deconvolved centre frame at HR size, as scale^2 frames of LR size."""
        enlarged = self.skip.inner(cut(lr[:, :, lr.shape[2] // 2], self.reach - self.skip.reach))
        return F.pixel_unshuffle(enlarged, self.core.scale).unflatten(1, (lr.shape[1], -1)) * self.value_range

    def _softer(self, lr: Tensor) -> Tensor:
        frames = cut(lr, self.reach - self.softer.reach).transpose(1, 2)
        return self.softer.at_lr_size(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)


def cut(frames: Tensor, margin: int) -> Tensor:
    return frames[..., margin : frames.shape[-2] - margin, margin : frames.shape[-1] - margin]


# ---- blocks ----

class Residual(nn.Module):
    """``x + second(activation(first(x)))``; `keep_alive` of compact scales the second convolution."""

    def __init__(self, first: nn.Module, activation: Callable[[Tensor], Tensor], second: nn.Module):
        super().__init__()
        self.first, self.activation, self.second = first, activation, second

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.activation(self.first(x)))


def conv(inputs: int, outputs: int, side: int = 3, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, padding=side // 2 * dilation, dilation=dilation)


def activated(activation: Callable[[Tensor], Tensor]) -> Callable[[int], nn.Module]:
    return lambda width: Residual(conv(width, width), activation, conv(width, width))


def gate(width: int) -> nn.Module:
    """Simple gate (NAFNet, Chen et al. 2022): one half of the maps times the other."""
    return Residual(conv(width, 2 * width), lambda maps: torch.mul(*maps.chunk(2, 1)), conv(width, width))


class Attention(Residual):
    """Parameter-free attention as in SPAN (Wan et al. 2024)."""

    def __init__(self, width: int):
        super().__init__(conv(width, width), F.silu, conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(self.activation(self.first(x)))
        return (out + x) * (torch.sigmoid(out) - 0.5) * 2 + x


class Reparametrised(Residual):
    """Convolutions that are sums of 3x3, 1x1 and identity while they train (RepVGG, Ding et al. 2021)."""

    def __init__(self, width: int):
        super().__init__(conv(width, width), F.relu, conv(width, width))
        self.one, self.two = conv(width, width, 1), conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.first(x) + self.one(x) + x)
        return x + self.second(y) + BLOCK_GAIN * self.two(y)


class ChannelAttention(Residual):
    """Channel attention (RCAN, Zhang et al. 2018)."""

    def __init__(self, width: int):
        super().__init__(conv(width, width), F.relu, conv(width, width))
        self.squeeze, self.excite = conv(width, width // 4, 1), conv(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.activation(self.first(x)))
        return x + y * torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))


# ---- networks ----

class Body(Compact):
    """compact with other blocks, other inputs, or its blocks several times in turn."""

    def __init__(self, channels: int, scale: int, width: int, num_blocks: int, inputs: int = 5,
                 block: Callable[[int], nn.Module] = Block, turns: int = 1, long_skip: bool = False):
        super().__init__(channels, scale, width, num_blocks)
        self.enter = nn.Conv2d(inputs * channels, width, 3)
        self.blocks = nn.Sequential(*(block(width) for _ in range(num_blocks)))
        self.turns, self.long_skip = turns, long_skip

    def forward(self, lr: Tensor) -> Tensor:
        x = entered = self.enter(lr.flatten(1, 2))
        for _ in range(self.turns):
            x = self.blocks(x)
        return F.pixel_shuffle(self.last(x + entered if self.long_skip else x), self.scale)


class InTwoSteps(Compact):
    """The frames join in two steps: the inner three and the outer three by themselves, then both."""

    def __init__(self, channels: int, scale: int):
        super().__init__(channels, scale, **BASE)
        half = BASE["width"] // 2
        self.enter, self.join = nn.Conv2d(3 * channels, half, 3), nn.Conv2d(2 * half, 2 * half, 1)

    def forward(self, lr: Tensor) -> Tensor:
        near, far = (F.relu(self.enter(frames.flatten(1, 2))) for frames in (lr[:, :, 1:4], lr[:, :, ::2]))
        return F.pixel_shuffle(self.last(self.blocks(self.join(torch.cat([near, far], 1)))), self.scale)


class Gradual(Compact):
    """The last layers compute at HR size."""

    def __init__(self, channels: int, scale: int):
        super().__init__(channels, scale, **BASE)
        few = BASE["width"] // scale**2
        self.before, self.fine = conv(BASE["width"], few * scale**2), conv(few, few)
        self.last = conv(few, channels)

    def forward(self, lr: Tensor) -> Tensor:
        x = F.pixel_shuffle(self.before(self.blocks(self.enter(lr.flatten(1, 2)))), self.scale)
        return self.last(x + self.fine(F.relu(x)))


class Halved(Compact):
    """Everything at half the LR size."""

    def __init__(self, channels: int, scale: int, width: int, num_blocks: int):
        super().__init__(channels, scale, width, num_blocks)
        self.enter, self.last = conv(5 * channels * 4, width), conv(width, channels * scale**2 * 4)

    def forward(self, lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        x = F.pad(lr.flatten(1, 2), (0, width % 2, 0, height % 2), mode="replicate")
        x = F.pixel_shuffle(self.last(self.blocks(self.enter(F.pixel_unshuffle(x, 2)))), 2 * self.scale)
        return cut(x[..., : self.scale * height, : self.scale * width], self.scale)


class Pyramid(Compact):
    """A second level at half the LR size, as in a small U-Net."""

    def __init__(self, channels: int, scale: int, width: int = 28, low: int = 36):
        super().__init__(channels, scale, width, 2)
        self.down, self.up = nn.Conv2d(width, low, 2, stride=2), conv(low, width * 4, 1)
        self.low = nn.Sequential(Block(low), Block(low))

    def forward(self, lr: Tensor) -> Tensor:
        x = self.blocks[0](self.enter(lr.flatten(1, 2)))
        height, width = x.shape[-2:]
        y = self.low(self.down(F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")))
        x = x + F.pixel_shuffle(self.up(y), 2)[..., :height, :width]
        return F.pixel_shuffle(self.last(self.blocks[1](x)), self.scale)

    def keep_alive(self, level: float) -> None:
        super().keep_alive(level)
        for block in self.low:
            block.second.weight.data.mul_(BLOCK_GAIN)


# ---- the variants ----

def body(**settings) -> Callable[[int, int], Compact]:
    return lambda channels, scale: Body(channels, scale, **{**BASE, **settings})


@dataclass(frozen=True)
class Variant:
    """A network, what it sees, and the settings of its training that differ.

    Attributes
    ----------
    core : callable
        Makes the network from the number of channels and the scale.
    sees : str
        See `Seeing`.
    frames : int
    noise : float
        Noise added to the LR frames; see `variant_splits.Noisy`.
    aligned : bool
        Whether the neighbours are moved onto the centre frame.
    train : dict
    times : int
        So many times the steps, with batches that are so many times smaller.
    """

    core: Callable[[int, int], Compact] = body()
    sees: str = "deconvolved"
    frames: int = 5
    noise: float = 0.0
    aligned: bool = False

    @property
    def split(self) -> type[Split]:
        """The class of the splits that it sees."""
        return AlignedSplit if self.aligned else noisy_split(self.noise) if self.noise else Split

    train: dict[str, Any] = field(default_factory=dict)
    times: int = 1


VARIANTS = {
    "base": Variant(),
    # training
    "lr 1e-3": Variant(train={"lr": 1e-3}),
    "lr 4e-3": Variant(train={"lr": 4e-3}),
    "lr 6e-3": Variant(train={"lr": 6e-3}),
    "mse": Variant(train={"loss": "mse"}),
    "no augment": Variant(train={"augment": False}),
    "twice the steps": Variant(times=2),
    "four times the steps": Variant(times=4),
    "patch 24, batch 44": Variant(train={"patch_size": 24, "batch_size": 44}),
    "patch 64, batch 6": Variant(train={"patch_size": 64, "batch_size": 6}),
    # frames
    "3 frames": Variant(body(inputs=3), frames=3),
    "1 frame": Variant(body(inputs=1), frames=1),
    "aligned": Variant(aligned=True),
    "24x7, aligned": Variant(body(width=24, num_blocks=7), aligned=True),
    "joined in two steps": Variant(InTwoSteps),
    "24x7, noise 4": Variant(body(width=24, num_blocks=7), noise=4),
    "24x7, 1 frame, noise 4": Variant(body(width=24, num_blocks=7, inputs=1), frames=1, noise=4),
    "24x7, 1 frame": Variant(body(width=24, num_blocks=7, inputs=1), frames=1),
    # input
    "plain": Variant(sees="plain"),
    "plain beside": Variant(body(inputs=10), sees="both"),
    "centre plain beside": Variant(body(inputs=6), sees="centre plain"),
    "phases beside": Variant(body(inputs=9), sees="phases"),
    "only phases": Variant(body(inputs=4), sees="only phases"),
    "two noises": Variant(body(inputs=10), sees="two noises"),
    # width and depth
    "46x2": Variant(body(width=46, num_blocks=2)),
    "24x7": Variant(body(width=24, num_blocks=7)),
    "16x16": Variant(body(width=16, num_blocks=16)),
    "64x6": Variant(body(width=64, num_blocks=6)),
    "48x20": Variant(body(width=48, num_blocks=20)),
    # structure
    "long skip": Variant(body(long_skip=True)),
    "gradual": Variant(Gradual),
    "recursion": Variant(body(width=45, num_blocks=2, turns=2)),
    "at half size": Variant(lambda channels, scale: Halved(channels, scale, 32, 4)),
    "at half size, 64x6": Variant(lambda channels, scale: Halved(channels, scale, 64, 6)),
    "pyramid": Variant(Pyramid),
    # blocks
    "leaky": Variant(body(block=activated(nn.LeakyReLU(0.1)))),
    "silu": Variant(body(block=activated(nn.SiLU()))),
    "gate": Variant(body(width=26, block=gate)),
    "attention": Variant(body(block=Attention)),
    "channel attention": Variant(body(block=ChannelAttention)),
    "reparametrised": Variant(body(block=Reparametrised)),
    "dilated": Variant(body(block=lambda width: Residual(conv(width, width, 3, 2), F.relu, conv(width, width)))),
    "5x5": Variant(body(num_blocks=2, block=lambda width: Residual(conv(width, width, 5), F.relu, conv(width, width)))),
    "widened": Variant(body(width=23, block=lambda width: Residual(conv(width, 2 * width), F.relu,
                                                                   conv(2 * width, width)))),
    "inverted": Variant(body(block=lambda width: Residual(conv(width, 2 * width), F.relu,
                                                          conv(2 * width, width, 1)))),
}
