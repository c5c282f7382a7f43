"""The networks. Each is a plain `torch.nn.Module` with the report's input and output; `build_model` completes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from hpc_vsr.errors import InputError
from hpc_vsr.models.blocks import count_parameters, initialise
from hpc_vsr.models.delta import Delta
from hpc_vsr.models.enlarge import Enlarge

__all__ = ["Enlarge", "ModelSettings", "Network", "build_model", "check_scale", "count_parameters"]

BORDER = 2  # HR pixels that the two valid 3D convolutions take from each side


@dataclass(frozen=True)
class ModelSettings:
    """Which network, and how it is completed.

    Attributes
    ----------
    name : str
        delta: the network of the report with 83,702 parameters.
    skip : str
        What the network's output is added to: none (the report's), the centre frame enlarged bicubically, or enlarged
        and deconvolved (wiener). With a skip the last layer starts at zero, so training starts from that baseline.
    input : str
        plain: LR frames as they are (the report's). deconvolved: after Wiener deconvolution with the known kernel at LR
        size, which shows the network the detail that the blur has made too faint for it to find.
    n_2d : int
        Depth of the 2D recursion.
    n_3d : int
        Depth of the 3D recursion.
    depth : str
        Which frames pass through all of the 2D recursion: the centre one or the outer ones.
    """

    name: Literal["delta"] = "delta"
    skip: Literal["none", "bicubic", "wiener"] = "none"
    input: Literal["plain", "deconvolved"] = "plain"
    n_2d: int = 5
    n_3d: int = 5
    depth: Literal["centre", "outer"] = "centre"

    def __post_init__(self):
        if min(self.n_2d, self.n_3d) < 1:
            raise InputError(f"model: n_2d and n_3d must be at least 1, found {self.n_2d} and {self.n_3d}")

    @property
    def uses_wiener(self) -> bool:
        return self.skip == "wiener" or self.input == "deconvolved"


class Network(nn.Module):
    """A network of the report with its residual path, and with the border that its user never loses.

    Values are 0..1 on the training split.

    Parameters
    ----------
    core : nn.Module
        (B, C, 5, h, w) to (B, C, 2h - 4, 2w - 4).
    skip : Enlarge or None
        Makes what the core's output is added to, from the centre frame.
    sharpen : Enlarge or None
        Deconvolves the frames that the core sees.

    Attributes
    ----------
    reach : int
        LR pixels around its output that `forward` wants besides the core's; 0 for the published networks.
    """

    def __init__(self, core: nn.Module, skip: Enlarge | None, sharpen: Enlarge | None):
        super().__init__()
        self.core, self.skip, self.sharpen = core, skip, sharpen
        self.reach = max((part.reach for part in (skip, sharpen) if part is not None), default=0)

    def forward(self, lr: Tensor) -> Tensor:
        """(B, C, 5, h + 2 reach, w + 2 reach) to (B, C, 2h - 4, 2w - 4); training uses this on patches."""
        out = self.core(self._core_input(lr))
        if self.skip is None:
            return out
        centre = lr[:, :, lr.shape[2] // 2]
        return out.float() + self.skip.inner(_trim(centre, self.reach - self.skip.reach + BORDER // 2))

    def upscale(self, lr: Tensor) -> Tensor:
        """(B, C, 5, h, w) to exactly (B, C, 2h, 2w): the frames are extended by replicated pixels first."""
        margin = self.reach + BORDER // 2
        return self(F.pad(lr, (margin,) * 4 + (0, 0), mode="replicate"))

    def _core_input(self, lr: Tensor) -> Tensor:
        if self.sharpen is None:
            return _trim(lr, self.reach)
        frames = _trim(lr, self.reach - self.sharpen.reach).transpose(1, 2)  # B, 5, C, h, w
        sharp = self.sharpen.at_lr_size(frames.flatten(0, 1))
        return sharp.unflatten(0, frames.shape[:2]).transpose(1, 2)


def _trim(frames: Tensor, margin: int) -> Tensor:
    """Cut `margin` pixels from each side."""
    return frames[..., margin : frames.shape[-2] - margin, margin : frames.shape[-1] - margin]


def check_scale(settings: ModelSettings, scale: int) -> None:
    """Raise `InputError` if the network has another scale than the data."""
    if scale != 2:
        raise InputError(f"model: {settings.name} enlarges 2 times, the data set is for {scale} times; "
                         "preprocess with --degradation.scale 2")


def build_model(settings: ModelSettings, channels: int, scale: int, sigma: float, noise: float) -> Network:
    """Build an initialised network.

    Parameters
    ----------
    settings : ModelSettings
    channels : int
        Channels of a frame.
    scale : int
        Factor of the data set.
    sigma, noise : float
        Blur in HR pixels and noise-to-signal power, for Wiener deconvolution.

    Raises
    ------
    InputError
        If the network has another scale than the data.
    """
    check_scale(settings, scale)
    core = Delta(channels, settings.n_2d, settings.n_3d, settings.depth)
    initialise(core)
    core.keep_alive()
    skip = sharpen = None
    if settings.skip != "none":
        skip = Enlarge(settings.skip, scale, sigma, noise)
        nn.init.zeros_(core.last.weight)
    if settings.input == "deconvolved":
        sharpen = Enlarge("wiener", scale, sigma, noise)
    return Network(core, skip, sharpen)
