"""The degradation as a differentiable filter, and back-projection, which makes an SR frame agree with its LR frame."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc_vsr.models.enlarge import Enlarge
from hpc_vsr.models.wrap import wrapped

BLUR_REACH = 4  # in sigmas; OpenCV cuts the kernel there for floating-point frames
CUBIC = -0.75  # OpenCV's parameter of cubic interpolation


class Reduce(nn.Module):
    """Gaussian blur and cubic reduction, (B, C, s h, s w) to (B, C, h, w), as `hpc_vsr.data.degrade` for float frames.

    Parameters
    ----------
    scale : int
    sigma : float
        Standard deviation of the blur in HR pixels; 0 for none.
    """

    def __init__(self, scale: int, sigma: float):
        super().__init__()
        self.scale = scale
        self.register_buffer("blur", _gaussian(sigma).float())
        self.register_buffer("taps", _cubic_taps(scale).float())

    def forward(self, hr: Tensor, periodic: str = "") -> Tensor:
        """Reduce frames, which may go on at the other side of the axes in `periodic`: "", "x", "y" or "xy"."""
        margin = self.scale * math.ceil((len(self.blur) // 2 + len(self.taps)) / self.scale)
        return wrapped(self._reduce, hr, margin, periodic)

    def _reduce(self, hr: Tensor) -> Tensor:
        batch, channels, height, width = hr.shape
        planes = hr.to(self.blur.dtype).reshape(batch * channels, 1, height, width)
        with torch.autocast(hr.device.type, enabled=False):
            for kernel, stride, mode in ((self.blur, 1, "reflect"), (self.taps, self.scale, "replicate")):
                margin = (len(kernel) - stride) // 2
                planes = F.pad(planes, (margin,) * 4, mode=mode) if margin else planes
                planes = F.conv2d(planes, kernel.view(1, 1, 1, -1), stride=(1, stride))
                planes = F.conv2d(planes, kernel.view(1, 1, -1, 1), stride=(stride, 1))
        return planes.reshape(batch, channels, *planes.shape[-2:])


def back_project(sr: Tensor, lr: Tensor, reduce: Reduce, enlarge: Enlarge, num_times: int, periodic: str = ""
                 ) -> Tensor:
    """Add to SR the enlarged difference between LR and the reduction of SR, `num_times` times.

    This is the method of Irani and Peleg 1991. The frames go on at the other side of the axes in `periodic`.
    """
    for _ in range(num_times):
        sr = sr + wrapped(enlarge, lr - reduce(sr, periodic), enlarge.reach, periodic)
    return sr


def _gaussian(sigma: float) -> Tensor:
    if sigma == 0:
        return torch.ones(1, dtype=torch.float64)
    size = round(sigma * BLUR_REACH * 2 + 1) | 1  # OpenCV's rule
    distance = torch.arange(size, dtype=torch.float64) - size // 2
    kernel = torch.exp(-0.5 * (distance / sigma) ** 2)
    return kernel / kernel.sum()


def _cubic_taps(scale: int) -> Tensor:
    """Return the weights of the HR pixels around the middle of an LR pixel.

    OpenCV does not widen them: at an even scale four count, at an odd one only the pixel in the middle.
    """
    size = max(4 - scale % 2, scale)
    distance = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2).abs()
    inner = (CUBIC + 2) * distance**3 - (CUBIC + 3) * distance**2 + 1
    outer = CUBIC * distance**3 - 5 * CUBIC * distance**2 + 8 * CUBIC * distance - 4 * CUBIC
    taps = torch.where(distance <= 1, inner, outer) * (distance < 2)
    assert math.isclose(taps.sum().item(), 1), taps
    return taps
