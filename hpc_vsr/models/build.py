"""Builds the networks: plain `torch.nn.Module`s with the paper's input and output, completed by `Network`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from hpc_vsr.models.blocks import RangeOutput, count_parameters, initialise
from hpc_vsr.models.compact import Compact
from hpc_vsr.models.core import Core
from hpc_vsr.models.delta import Delta
from hpc_vsr.models.enlarge import Enlarge
from hpc_vsr.models.flops import count_flops
from hpc_vsr.models.flow import warp
from hpc_vsr.models.flow4x import Flow4x
from hpc_vsr.models.network import Network
from hpc_vsr.models.parallel5 import Parallel5
from hpc_vsr.models.previous import Previous
from hpc_vsr.models.reduce import BLUR_REACH, Reduce, back_project
from hpc_vsr.models.settings import ModelSettings, check_scale

__all__ = ["BLUR_REACH", "Enlarge", "ModelSettings", "Network", "Reduce", "back_project", "build_model", "check_scale",
           "count_flops", "count_parameters", "warp"]

MAP_LEVEL = 0.5  # share of the value range at which the maps of the 2D part start


def build_model(settings: ModelSettings, channels: int, scale: int, sigma: float, noise: float | Sequence[float]
                ) -> Network:
    """Build an initialised network.

    Parameters
    ----------
    settings : ModelSettings
    channels : int
        Channels of a frame.
    scale : int
        Factor of the data set.
    sigma : float
        Blur in HR pixels.
    noise : float or sequence of float
        Noise-to-signal power for Wiener deconvolution, for all channels or for each.

    Raises
    ------
    InputError
        If the network has another scale than the data.
    """
    check_scale(settings, scale)
    core = _build_core(settings, channels, scale)
    if settings.init == "he":
        initialise(core)
        core.keep_alive(MAP_LEVEL * settings.value_range)
    # the last layer starts at zero, so that training starts from the residual path
    skip = sharpen = None
    if settings.skip != "none":
        skip = Enlarge(settings.skip, scale, sigma, noise)
        nn.init.zeros_(core.last.weight)
        nn.init.zeros_(core.last.bias)
    if settings.input == "deconvolved":
        sharpen = Enlarge("wiener", scale, sigma, noise)
    limit = RangeOutput(*settings.output_range) if settings.output_range else None
    return Network(core, skip, sharpen, settings.value_range, limit, settings.frames, settings.align)


def _build_core(settings: ModelSettings, channels: int, scale: int) -> Core:
    axes = settings.kernel_axes
    match settings.name:
        case "delta":
            return Delta(channels, settings.n_2d, settings.n_3d, settings.depth, axes)
        case "parallel5":
            return Parallel5(channels, settings.n_2d, settings.n_3d, settings.recursive_streams,
                             settings.features_2d, settings.num_recursive_blocks, axes)
        case "previous":
            return Previous(channels, axes)
        case "compact":
            return Compact(channels, scale, settings.width, settings.blocks, settings.frames)
        case "flow4x":
            return Flow4x(channels, settings.n_2d, settings.n_3d, axes, residual=settings.skip != "none")
