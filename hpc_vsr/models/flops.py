"""Counts the floating-point operations of a network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hpc_vsr.models.network import Network

aten = torch.ops.aten


def count_flops(network: Network, channels: int, lr_size: tuple[int, int]) -> int:
    """Return the floating-point operations for one frame of `lr_size` (height, width).

    A multiplication and an addition count as two. PyTorch's formulas count them on tensors without values.
    """
    empty = copy.deepcopy(network).to("meta")
    with _FlopCounter() as counter:
        empty.upscale(torch.empty(1, channels, 5, *lr_size, device="meta"), tile=0)
    return counter.total


class _FlopCounter(TorchDispatchMode):
    """A sum of PyTorch's formulas over all operations.

    PyTorch's `FlopCounterMode` does the same and imports the compiler first, which takes seconds. So do many of its
    operations on tensors without values; of those that networks have at most, `_find_shape` knows the result.
    """

    def __init__(self):
        super().__init__()
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        formula = flop_registry.get(function._overloadpacket)
        shape = _find_shape(function, args) if formula is None and not kwargs else None
        if shape is not None:
            return torch.empty(shape, dtype=_first(args).dtype, device="meta")
        out = function(*args, **(kwargs or {}))
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def _find_shape(function: Any, args: Sequence[Any]) -> Sequence[int] | None:
    """Return the shape of an operation's result, which has the type of its first tensor; None if it is not known."""
    if not _first(args).is_floating_point():
        return None
    if function in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.relu.default):
        return torch.broadcast_shapes(*(arg.shape for arg in args if isinstance(arg, Tensor)))
    if function is aten.mean.dim:
        dims = {dim % args[0].ndim for dim in args[1]}
        sides = [1 if dim in dims else side for dim, side in enumerate(args[0].shape)]
        keeps = len(args) > 2 and args[2]
        return sides if keeps else [side for dim, side in enumerate(sides) if dim not in dims]
    if function is aten.cat.default:
        tensors, dim = args[0], args[1] if len(args) > 1 else 0
        shape = list(tensors[0].shape)
        shape[dim] = sum(tensor.shape[dim] for tensor in tensors)
        return shape
    if function is aten.stack.default:
        tensors, dim = args[0], args[1] if len(args) > 1 else 0
        shape = list(tensors[0].shape)
        shape.insert(dim % (len(shape) + 1), len(tensors))
        return shape
    return None


def _first(args: Sequence[Any]) -> Tensor:
    """Return the first tensor of an operation, or of a list of tensors."""
    return args[0] if isinstance(args[0], Tensor) else args[0][0]
