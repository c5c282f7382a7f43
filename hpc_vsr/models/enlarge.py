"""Enlarges by a fixed linear filter: bicubic, or bicubic and then Wiener deconvolution with the known kernel.

The same code serves as the baselines of an evaluation and as the residual path (`skip`) of a network. Because the
filter is the same at every LR pixel, it is one small convolution that gives the scale x scale HR pixels of each LR
pixel.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc_vsr.models.blocks import correlate

CUBIC_REACH = 2  # LR pixels that cubic interpolation sees at each side
KERNEL_REACH = 16  # in sigmas; for a noise of 1e-4 and more, within 0.004 dB of a Fourier transform of the frame
LONG_REACH, LITTLE_NOISE = 24, 1e-4  # the reach below that noise, where the filter rings further


class Enlarge(nn.Module):
    """Fixed filter from (B, C, h, w) to (B, C, scale h, scale w), channel by channel; borders are replicated.

    Parameters
    ----------
    kind : {"bicubic", "wiener"}
        bicubic is ``cv2.INTER_CUBIC`` (a = -0.75) without its rounding.
    scale : int
    sigma : float
        Standard deviation of the Gaussian blur that wiener undoes, in HR pixels.
    noise : float
        Noise-to-signal power K of the Wiener filter H / (H^2 + K).

    Attributes
    ----------
    reach : int
        LR pixels on each side that an output pixel depends on.
    """

    def __init__(self, kind: Literal["bicubic", "wiener"], scale: int, sigma: float = 0.0, noise: float = 1e-3):
        super().__init__()
        self.scale = scale
        response = _wiener(sigma, noise) if kind == "wiener" else torch.ones(1, 1, dtype=torch.float64)
        kernels = _polyphase(response, scale)
        self.reach = kernels.shape[-1] // 2
        self.register_buffer("kernels", kernels.float())

    def forward(self, lr: Tensor) -> Tensor:
        return self.inner(F.pad(lr, (self.reach,) * 4, mode="replicate"))

    def inner(self, lr: Tensor) -> Tensor:
        """Enlarge (B, C, h + 2 reach, w + 2 reach) to (B, C, scale h, scale w): the border is given, not replicated."""
        return self._filter(lr, self.kernels)

    def at_lr_size(self, lr: Tensor) -> Tensor:
        """Filter (B, C, h + 2 reach, w + 2 reach) to (B, C, h, w): the mean of the HR pixels of each LR pixel."""
        return self._filter(lr, self.kernels.mean(0, keepdim=True))

    def _filter(self, lr: Tensor, kernels: Tensor) -> Tensor:
        batch, channels, height, width = lr.shape
        device = "cpu" if lr.is_meta else lr.device.type
        with torch.autocast(device, enabled=False):  # half precision would round away what it restores
            phases = correlate(lr.to(kernels.dtype).reshape(batch * channels, 1, height, width), kernels)
        enlarged = F.pixel_shuffle(phases, round(len(kernels) ** 0.5))
        return enlarged.reshape(batch, channels, *enlarged.shape[-2:])


def _wiener(sigma: float, noise: float) -> Tensor:
    """Return the Wiener filter of a Gaussian blur, (K, K) with K odd; it sums to 1, so that flat areas stay."""
    reach = math.ceil((KERNEL_REACH if noise >= LITTLE_NOISE else LONG_REACH) * sigma)
    size = max(512, 8 * reach)
    frequency = torch.fft.fftfreq(size, dtype=torch.float64)
    blur = torch.exp(-2 * (math.pi * sigma * frequency) ** 2)
    blur = blur[:, None] * blur[None, :]
    kernel = torch.fft.fftshift(torch.fft.ifft2(blur / (blur**2 + noise)).real)
    middle = size // 2
    kernel = kernel[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
    return kernel / kernel.sum()


def _polyphase(kernel: Tensor, scale: int) -> Tensor:
    """Return cubic enlargement followed by `kernel` as (scale^2, 1, k, k) filters on LR pixels, one per HR position.

    They are read off the response of the whole chain to a single LR pixel.
    """
    reach = CUBIC_REACH + math.ceil(kernel.shape[-1] // 2 / scale)
    size = 2 * (2 * reach) + 1
    impulse = torch.zeros(1, 1, size, size, dtype=torch.float64)
    impulse[..., size // 2, size // 2] = 1
    enlarged = F.interpolate(impulse, scale_factor=scale, mode="bicubic", align_corners=False)
    answer = _convolve(enlarged, kernel)
    phases = F.pixel_unshuffle(answer, scale)[0]  # (scale^2, size, size)
    middle = size // 2
    near = phases[:, middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
    return near.flip(-1, -2)[:, None]  # mirrored, because a correlation applies the response in reverse


def _convolve(image: Tensor, kernel: Tensor) -> Tensor:
    """Convolve a (1, 1, H, W) image with an odd (K, K) kernel by FFT; same size, zeros outside."""
    size = [side + kernel.shape[-1] - 1 for side in image.shape[-2:]]
    product = torch.fft.rfft2(image, s=size) * torch.fft.rfft2(kernel, s=size)
    start = kernel.shape[-1] // 2
    full = torch.fft.irfft2(product, s=size)
    return full[..., start : start + image.shape[-2], start : start + image.shape[-1]]
