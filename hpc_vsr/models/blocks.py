"""Layers that the networks of the paper share.

Kernels of 3D convolutions are written (depth, height, width), where depth is time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpc_vsr.models.settings import KernelAxes

RECURSIVE_GAIN = 0.1
BILINEAR = torch.tensor([0.25, 0.75, 0.75, 0.25])  # kernel that enlarges 2 times with side 4, stride 2 and padding 1
RANGE_SLOPE = 100.0  # divisor inside the sigmoid of the paper's S(x)
FEW_CHANNELS = 8  # 3D convolutions with fewer input channels are folded to 2D
BLOCK = 4  # `correlate` computes blocks of 4x4 outputs
WHOLE_TILE = 32  # channels of one AMX tile in bf16
_computed_as_on_gpu = False
ONEDNN_TYPES = (torch.float32, torch.bfloat16)  # not fp16, in which its 3D convolution accumulates too coarsely


class Conv3d(nn.Conv3d):
    """`nn.Conv3d` computed in the way that is fastest for few channels, with the same weights and the same sum.

    On a CPU it uses oneDNN's kernels with the channels last in memory. Where those are slow or coarse (one channel, one
    depth tap, fp16, bf16 on Arm), and on a GPU (to avoid cuDNN's half-precision 3D kernels), it folds the depth taps
    into channels and uses a 2D convolution. docs/performance.md has the times. Stride, dilation and groups are the
    parent's defaults.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, D, H, W) to (B, C', D', H', W'); in memory the channels come last."""
        if torch.compiler.is_exporting():  # programs that load the export bring their own kernels
            return super().forward(x)
        dtype = _dtype_on_cpu(x)
        if (not is_computed_by_cpu(x) or dtype not in ONEDNN_TYPES or self.kernel_size[0] == 1
                or self.in_channels < FEW_CHANNELS or (dtype == torch.bfloat16 and _has_arm_compute_library())):
            return self._folded(x)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        # for a small single sample ATen (use_mkldnn in Convolution.cpp) uses plain kernels, ten times slower
        skips_onednn = dtype == torch.float32 and x.shape[0] == 1 and x[:, :, :, :, 0].numel() <= 20480
        if not (skips_onednn and torch.backends.mkldnn.is_available()):
            if torch.is_grad_enabled() and _folds_gradient(dtype):
                return _Conv3dWithFoldedGradient.apply(x.to(dtype), self.weight.to(dtype), self.bias.to(dtype),
                                                       self.padding)
            return super().forward(x)
        if torch.is_grad_enabled():
            return self._folded(x)
        return torch.mkldnn_convolution(x, self.weight, self.bias, self.padding, self.stride, self.dilation, 1)

    def _folded(self, x: Tensor) -> Tensor:
        """Compute the convolution in 2D, with the depth taps folded into channels."""
        taps, (pad_depth, *pad_plane) = self.kernel_size[0], self.padding
        weight = self.weight.transpose(1, 2).reshape(self.out_channels, -1, *self.kernel_size[1:])
        out = F.conv2d(_fold(x, taps, pad_depth), weight, self.bias, padding=tuple(pad_plane)).permute(0, 2, 3, 1)
        return out.reshape(x.shape[0], -1, *out.shape[1:]).permute(0, 4, 1, 2, 3)


class _Conv3dWithFoldedGradient(torch.autograd.Function):
    """`F.conv3d` on a CPU that computes the weights' gradient in 2D, with the depth taps folded."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv3d(x, weight, bias, padding=padding)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
        ones, zeros = [1, 1, 1], [0, 0, 0]
        of_x = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, ones, ctx.padding, ones, False, zeros, 1, [True, False, False],
        )[0] if ctx.needs_input_grad[0] else None

        features, channels, taps, *plane = weight.shape
        flat = gradient.permute(0, 2, 3, 4, 1).flatten(0, 1).permute(0, 3, 1, 2)
        _, of_weight, of_bias = torch.ops.aten.convolution_backward(
            flat, _fold(x, taps, ctx.padding[0]), weight.new_empty(features, taps * channels, *plane), [features],
            ones[1:], ctx.padding[1:], ones[1:], False, zeros[1:], 1, [False, True, True])
        return of_x, of_weight.view(features, taps, channels, *plane).transpose(1, 2), of_bias, None


def _folds_gradient(dtype: torch.dtype) -> bool:
    """Check whether to avoid oneDNN's own gradient of the weights of a 3D convolution on this processor.

    With AMX that gradient is NaN in bf16 from 24 channels and some 64 pixels on (oneDNN 3.12, in torch 2.13). Without
    AVX-512 it takes half as long again in float32 as the folded one (docs/performance.md).
    """
    if dtype == torch.bfloat16:
        return _has_amx()
    return dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() != "AVX512"


def _has_amx() -> bool:
    return getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


def _has_arm_compute_library() -> bool:
    """Check whether oneDNN uses Arm's library, with which bf16 is fast in 2D but runs as plain loops in 3D."""
    return getattr(torch.backends.mkldnn, "is_acl_available", lambda: False)()


def _fold(x: Tensor, taps: int, pad_depth: int) -> Tensor:
    """Fold (B, C, D, H, W) to (B (D + 2 pad - taps + 1), taps C, H, W): the frames under each depth tap as channels."""
    frames = x.permute(0, 2, 3, 4, 1)
    if pad_depth:
        frames = F.pad(frames, (0, 0, 0, 0, 0, 0, pad_depth, pad_depth))
    depth = frames.shape[1] - taps + 1
    folded = torch.cat([frames[:, tap : tap + depth] for tap in range(taps)], dim=-1) if taps > 1 else frames
    return folded.flatten(0, 1).permute(0, 3, 1, 2)


class Conv2dToFew(nn.Conv2d):
    """`nn.Conv2d` of stride 1 to one or a few channels, with the same weights and the same sum; see `correlate`."""

    def forward(self, x: Tensor) -> Tensor:
        top, left = self.padding
        return correlate(F.pad(x, (left, left, top, top)), self.weight, self.bias)


def correlate(x: Tensor, kernels: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``F.conv2d(x, kernels, bias)`` for few kernels, several times faster on a CPU.

    oneDNN computes 16 output channels at a time, so with one channel 15 are wasted. This function computes a block of
    4x4 outputs as 16 channels at stride 4; each channel has the kernels moved to its place in a frame of zeros.

    In bf16 with AMX the input is padded with channels of zeros up to a multiple of 32. Without them oneDNN (3.12, in
    torch 2.13) computes a strided convolution of 8 to 24 channels wrongly at every fourth size, without an error.
    """
    if not is_computed_by_cpu(x) or torch.compiler.is_exporting():
        return F.conv2d(x, kernels, bias)
    missing = -x.shape[1] % WHOLE_TILE
    if missing and _dtype_on_cpu(x) == torch.bfloat16 and _has_amx():
        x = F.pad(x, (0, 0, 0, 0, 0, missing))
    else:
        missing = 0
    height, width = (side - kernel + 1 for side, kernel in zip(x.shape[-2:], kernels.shape[-2:], strict=True))
    last = BLOCK - 1
    moved = [F.pad(kernels, (column, last - column, row, last - row, 0, missing))
             for row in range(BLOCK) for column in range(BLOCK)]
    blocks = F.conv2d(F.pad(x, (0, -width % BLOCK, 0, -height % BLOCK)), torch.stack(moved, dim=1).flatten(0, 1),
                      None if bias is None else bias.repeat_interleave(BLOCK**2), stride=BLOCK)
    return F.pixel_shuffle(blocks, BLOCK)[..., :height, :width]


@contextlib.contextmanager
def as_on_gpu() -> Iterator[None]:
    """Make the layers compute as on a GPU, wherever their tensors are; for plans and tests without a GPU."""
    global _computed_as_on_gpu
    before, _computed_as_on_gpu = _computed_as_on_gpu, True
    try:
        yield
    finally:
        _computed_as_on_gpu = before


def is_computed_by_cpu(x: Tensor) -> bool:
    """Return whether a CPU computes with `x`, and nothing makes it compute `as_on_gpu`."""
    return x.device.type == "cpu" and not _computed_as_on_gpu


def _dtype_on_cpu(x: Tensor) -> torch.dtype:
    """Return the type in which a CPU computes a convolution of `x`."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


class ReLU(nn.Module):
    """ReLU that works in place while gradients are off."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x, inplace=not torch.is_grad_enabled())


class Recursive(nn.Module):
    """``x = relu(block(x) + x)``, `num_times` times with the same weights."""

    def __init__(self, block: nn.Module, num_times: int):
        super().__init__()
        self.block, self.num_times = block, num_times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.num_times):
            x = F.relu(self.block(x) + x) if torch.is_grad_enabled() else self.block(x).add_(x).relu_()
        return x


def in_full(x: Tensor) -> Tensor:
    """Return `x` in float32; float64 stays float64, for the references of tests."""
    return x if x.dtype == torch.float64 else x.float()


class RangeOutput(nn.Module):
    """Layer that keeps values within `low` .. `high`: ``(high - low) sigmoid(x / 100) + low``, the paper's S(x)."""

    def __init__(self, low: float, high: float):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return (self.high - self.low) * torch.sigmoid(in_full(x) / RANGE_SLOPE) + self.low


def extract(channels: int, features: int) -> nn.Sequential:
    """Return 5x5 to 32 features, then 1x1 to `features`; (B, channels, h, w) to (B, features, h, w)."""
    return nn.Sequential(nn.Conv2d(channels, 32, 5, padding=2), ReLU(), nn.Conv2d(32, features, 1), ReLU())


def residual_2d(features: int) -> nn.Sequential:
    """Return 3x3, ReLU, 3x3: the block that a 2D recursion repeats."""
    return nn.Sequential(nn.Conv2d(features, features, 3, padding=1), ReLU(),
                         nn.Conv2d(features, features, 3, padding=1))


def residual_3d(features: int) -> nn.Sequential:
    """Return 3x3x3, ReLU, 3x3x3: the block that a 3D recursion repeats."""
    return nn.Sequential(Conv3d(features, features, 3, padding=1), ReLU(),
                         Conv3d(features, features, 3, padding=1))


def enlarge(features: int, channels: int) -> nn.Sequential:
    """Return 1x1 to 32, transposed 4x4 of stride 2 to 16, 5x5; (B, features, h, w) to (B, channels, 2h, 2w)."""
    return nn.Sequential(
        nn.Conv2d(features, 32, 1), ReLU(),
        nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1), ReLU(),
        Conv2dToFew(16, channels, 5, padding=2),
    )


def enter_3d(channels: int, features: int, axes: KernelAxes) -> nn.Sequential:
    """Return the two convolutions that open a 3D part.

    ``published`` has the authors' kernels: (5,5,3), which spans five frames, five rows and three columns, and (1,1,3),
    a row of three pixels. ``temporal`` turns them to (3,5,5), five by five pixels of three frames, and (3,1,1). Both
    have the same number of parameters.
    """
    wide, narrow = _kernels(axes)
    return nn.Sequential(_same(channels, 32, wide), ReLU(), _same(32, features, narrow), ReLU())


def leave_3d(features: int, axes: KernelAxes) -> nn.Sequential:
    """Return the three convolutions that close a 3D part.

    The last two are not padded: they reduce the depth from 5 to 1 and lose two pixels at each side.
    """
    _, narrow = _kernels(axes)
    return nn.Sequential(
        _same(features, 32, narrow), ReLU(),
        Conv3d(32, 32, 3), ReLU(),
        Conv3d(32, 32, 3), ReLU(),
    )


def initialise(network: nn.Module) -> None:
    """Initialise a network after He for ReLU, with zero biases.

    Two changes let these networks learn from the first step. Convolutions inside `Recursive` are scaled by
    `RECURSIVE_GAIN`, because a recursion that is applied ten times would amplify its input a hundredfold. Transposed
    convolutions of side 4 start as bilinear interpolation of randomly mixed channels, because random kernels would
    print a chequered pattern over the detail.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.ConvTranspose2d):
            mix = torch.randn(module.weight.shape[:2]) * (2 / module.in_channels) ** 0.5
            module.weight.data = mix[:, :, None, None] * BILINEAR[:, None] * BILINEAR
            nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, Recursive):
            for inner in module.modules():
                if isinstance(inner, (nn.Conv2d, nn.Conv3d)):
                    inner.weight.data.mul_(RECURSIVE_GAIN)


def count_parameters(network: nn.Module) -> int:
    """Return the number of parameters; the fixed filters are buffers and do not count."""
    return sum(parameter.numel() for parameter in network.parameters())


def _kernels(axes: KernelAxes) -> tuple[Sequence[int], Sequence[int]]:
    return ((5, 5, 3), (1, 1, 3)) if axes == "published" else ((3, 5, 5), (3, 1, 1))


def _same(channels: int, features: int, kernel: Sequence[int]) -> Conv3d:
    return Conv3d(channels, features, tuple(kernel), padding=tuple(side // 2 for side in kernel))
