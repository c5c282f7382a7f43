"""Enlarges by a fixed linear filter: bicubic, or bicubic and then Wiener deconvolution with the known kernel.

The same code serves as the baselines of an evaluation and as the residual path (`skip`) of a network. Because the
filter is the same at every LR pixel, it is one small convolution that gives the scale x scale HR pixels of each LR
pixel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc_vsr.models.blocks import correlate, is_computed_by_cpu

CUBIC_REACH = 2  # LR pixels that cubic interpolation sees at each side
REACHES = range(16, 33)  # of the Wiener filter in sigmas; the less the noise, the further it rings
LEAST_FOR_FFT = 12  # side of the kernels from which an FFT is faster on a CPU (docs/performance.md)
MOST_SPECTRA = 8
TAIL = 0.02  # most that is cut off the Wiener filter: the sum of the absolute values, where the whole sum is 1


class Enlarge(nn.Module):
    """Fixed filter from (B, C, h, w) to (B, C, scale h, scale w), channel by channel; borders are replicated.

    Parameters
    ----------
    kind : {"bicubic", "wiener"}
        bicubic is ``cv2.INTER_CUBIC`` (a = -0.75) without its rounding.
    scale : int
    sigma : float
        Standard deviation of the Gaussian blur that wiener undoes, in HR pixels.
    noise : float or sequence of float
        Noise-to-signal power K of the Wiener filter H / (H^2 + K); several are one for each channel.

    Attributes
    ----------
    reach : int
        LR pixels on each side that an output pixel depends on.
    """

    def __init__(self, kind: Literal["bicubic", "wiener"], scale: int, sigma: float = 0.0,
                 noise: float | Sequence[float] = 1e-3):
        super().__init__()
        self.kind, self.scale = kind, scale
        noises = noise if isinstance(noise, Sequence) and kind == "wiener" else [noise]
        filters = [_polyphase(_wiener(sigma, one) if kind == "wiener" else torch.ones(1, 1, dtype=torch.float64), scale)
                   for one in noises]
        side = max(one.shape[-1] for one in filters)
        filters = [F.pad(one, ((side - one.shape[-1]) // 2,) * 4) for one in filters]
        self.num_filters = len(filters)  # one for all channels, or one for each
        self.register_buffer("kernels", torch.cat(filters).float())
        # of the kernels, by their level, the filter, the number of kernels and the size of an FFT
        self._spectra: dict[tuple[int, ...], Tensor] = {}
        self._level, self._levels = -1, {-1}

    @property
    def reach(self) -> int:
        return self.kernels.shape[-1] // 2

    @torch.no_grad()
    def use(self, kernels: Tensor, level: int) -> None:
        """Filter with these kernels, of the same size as before, from now on; each level has its own."""
        self.kernels.copy_(kernels)
        self._level = level
        self._levels.add(level)

    def forward(self, lr: Tensor) -> Tensor:
        return self.inner(F.pad(lr, (self.reach,) * 4, mode="replicate"))

    def inner(self, lr: Tensor) -> Tensor:
        """Enlarge (B, C, h + 2 reach, w + 2 reach) to (B, C, scale h, scale w): the border is given, not replicated."""
        return self._filter_each(lr, self.kernels.chunk(self.num_filters))

    def at_lr_size(self, lr: Tensor) -> Tensor:
        """Filter (B, C, h + 2 reach, w + 2 reach) to (B, C, h, w): the mean of the HR pixels of each LR pixel."""
        return self._filter_each(lr, [one.mean(0, keepdim=True) for one in self.kernels.chunk(self.num_filters)])

    def _filter_each(self, lr: Tensor, filters: Sequence[Tensor]) -> Tensor:
        if len(filters) == 1:
            return self._filter(lr, filters[0])
        assert len(filters) == lr.shape[1], (len(filters), lr.shape)
        planes = zip(lr.split(1, 1), filters, strict=True)
        return torch.cat([self._filter(plane, one, number) for number, (plane, one) in enumerate(planes)], 1)

    def _filter(self, lr: Tensor, kernels: Tensor, number: int = 0) -> Tensor:
        batch, channels, height, width = lr.shape
        device = "cpu" if lr.is_meta else lr.device.type
        with torch.autocast(device, enabled=False):  # half precision would round away what it restores
            frames = lr.to(kernels.dtype).reshape(batch * channels, 1, height, width)
            by_fft = kernels.shape[-1] >= LEAST_FOR_FFT and is_computed_by_cpu(lr) and not torch.compiler.is_exporting()
            phases = self._correlate_by_fft(frames, kernels, number) if by_fft else correlate(frames, kernels)
        enlarged = F.pixel_shuffle(phases, round(len(kernels) ** 0.5))
        return enlarged.reshape(batch, channels, *enlarged.shape[-2:])

    def _correlate_by_fft(self, frames: Tensor, kernels: Tensor, number: int) -> Tensor:
        """Return ``F.conv2d(frames, kernels)`` by way of the frequencies; `number` is that of the filter."""
        sides = [frame - kernel + 1 for frame, kernel in zip(frames.shape[-2:], kernels.shape[-2:], strict=True)]
        size = tuple(_fast_length(side) for side in frames.shape[-2:])
        key = self._level, number, len(kernels), *size
        spectrum = self._spectra.get(key)
        if spectrum is None:
            with torch.inference_mode(False), torch.no_grad():
                spectrum = torch.fft.rfft2(kernels.clone()[:, 0], s=size).conj().resolve_conj()
            if type(spectrum) is Tensor:  # and none without values, on which memory is estimated
                if len(self._spectra) >= MOST_SPECTRA * self.num_filters * len(self._levels):
                    self._spectra.clear()
                self._spectra[key] = spectrum
        # what wraps around lies beyond what is kept
        out = torch.fft.irfft2(torch.fft.rfft2(frames, s=size) * spectrum, s=size)
        return out[..., : sides[0], : sides[1]]

    def _apply(self, *arguments, **keywords):
        self._spectra.clear()  # the kernels get another type or device
        return super()._apply(*arguments, **keywords)

    def _load_from_state_dict(self, *arguments, **keywords) -> None:
        self._spectra.clear()
        super()._load_from_state_dict(*arguments, **keywords)


def _fast_length(length: int) -> int:
    """Return the next length without a prime factor above 5, for which an FFT is fast."""
    return next(fast for fast in itertools.count(length) if 30**20 % fast == 0)


def adopt_lengths(network: nn.Module, weights: Mapping[str, Any]) -> None:
    """Give the fixed filters of a network the length that they have in a state dict.

    A trained network keeps the filters that it was trained with; earlier versions cut them at other places.
    """
    for name, module in network.named_modules():
        stored = weights.get(f"{name}.kernels")
        if isinstance(module, Enlarge) and isinstance(stored, Tensor) and stored.ndim == 4:
            own, side = module.kernels, stored.shape[-1]
            if side % 2 and stored.shape == (*own.shape[:2], side, side):
                module.kernels = own.new_zeros(stored.shape)


def _wiener(sigma: float, noise: float) -> Tensor:
    """Return the Wiener filter of a Gaussian blur, (K, K) with K odd; it sums to 1, so that flat areas stay.

    It is as short as `TAIL` allows.
    """
    size = max(512, math.ceil(4 * REACHES[-1] * sigma))
    blur = _gaussian_response(sigma, size)
    blur = blur[:, None] * blur[None, :]
    kernel = torch.fft.fftshift(torch.fft.ifft2(blur / (blur**2 + noise)).real)
    middle = size // 2
    # the sum of the absolute values within each square around the middle
    distance = (torch.arange(size) - middle).abs()
    squares = torch.maximum(distance[:, None], distance[None, :]).flatten()
    within = torch.bincount(squares, (kernel / kernel.sum()).abs().flatten()).cumsum(0)
    reaches = [math.ceil(sigmas * sigma) for sigmas in REACHES]
    reach = next((reach for reach in reaches if within[-1] - within[reach] <= TAIL), reaches[-1])
    kernel = kernel[middle - reach : middle + reach + 1, middle - reach : middle + reach + 1]
    return kernel / kernel.sum()


def _gaussian_response(sigma: float, size: int) -> Tensor:
    """Return the frequency response of a Gaussian that is sampled at pixels, as a blur of pixels is; (size,), 1 at 0.

    Unlike that of a continuous Gaussian it has no kink at the highest frequency, which for a sigma near 1 would make
    the filter ring without end. Without a blur (sigma 0) it is 1 everywhere.
    """
    if sigma == 0:
        return torch.ones(size, dtype=torch.float64)
    pixels = torch.arange(-math.ceil(9 * sigma), math.ceil(9 * sigma) + 1, dtype=torch.float64)
    weights = torch.exp(-((pixels / sigma) ** 2) / 2)
    frequency = torch.fft.fftfreq(size, dtype=torch.float64)
    return torch.cos(2 * math.pi * frequency[:, None] * pixels) @ (weights / weights.sum())


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
