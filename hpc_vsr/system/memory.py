"""Memory: the amount that a computation will take, the amount that is free, and what the C library keeps for reuse."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # glibc's malloc.h
ONE_GIB = 1 << 30
LEAST_PROCESS, GROWTH = 450_000_000, 200_000_000  # bytes of a process without tensors, and of what it loads later
GPU_CONTEXT = 700_000_000  # bytes of CUDA and its libraries; estimated
GPU_SCRATCH = 1.3  # factor on the bytes of the tensors, for cuDNN's workspaces and gaps between blocks; estimated


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks of up to 1 GiB instead of returning them to the kernel.

    On a CPU a network frees and allocates the same large blocks at every layer. If it got their pages from the kernel
    each time, that would take as long as the convolutions (docs/decisions.md). Without glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        if libc.mallopt(M_MMAP_THRESHOLD, ONE_GIB) or libc.mallopt(M_MMAP_MAX, 0):  # glibc 2.31 refuses the first
            libc.mallopt(M_TRIM_THRESHOLD, ONE_GIB)


def peak_memory() -> int:
    """Return the most bytes of main memory that this process has held.

    On Linux, getrusage's figure would include the process that started this one.
    """
    with contextlib.suppress(OSError, ValueError, StopIteration):
        return _kibibytes(Path("/proc/self/status"), "VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def process_memory() -> int:
    """Return the bytes that a process like this one takes besides its tensors: libraries, decoder, encoder, kernels.

    They follow from the memory of this process, because a torch with CUDA takes half a gigabyte more.
    """
    with contextlib.suppress(OSError, ValueError, StopIteration):
        return max(LEAST_PROCESS, _kibibytes(Path("/proc/self/status"), "VmRSS") + GROWTH)
    return LEAST_PROCESS


def memory_of_gpu(tensors: int) -> int:
    """Return the GPU memory, in bytes, of a process whose tensors take this many; estimated (docs/performance.md)."""
    return GPU_CONTEXT + int(GPU_SCRATCH * tensors)


def peak_of_tensors(function: Callable[[], Any]) -> int:
    """Return the most bytes that live tensors take at one time while `function` runs on tensors without values."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # takes a second to import

    with FakeTensorMode(allow_non_fake_inputs=True), _LiveTensors() as tensors:
        function()
    return tensors.peak


class _LiveTensors(TorchDispatchMode):
    """A count of the bytes of all tensors that operations have returned and that are still alive."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self._held: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.mkldnn_convolution.default:  # torch cannot run it without values
            x, weight, bias, padding, stride, dilation, groups = args
            returned = torch.ops.aten.convolution(x, weight, bias, stride, padding, dilation, False, [0], groups)
        else:
            returned = function(*args, **(kwargs or {}))
        for tensor in tree_iter(returned):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._held:
                    self._held.add(storage._cdata)
                    self.live += storage.nbytes()
                    self.peak = max(self.peak, self.live)
                    weakref.finalize(storage, self._release, storage._cdata, storage.nbytes())
        return returned

    def _release(self, key: int, num_bytes: int) -> None:
        self._held.discard(key)
        self.live -= num_bytes


def free_memory() -> int | None:
    """Return the bytes free on this machine or in the control group of this SLURM job, whichever is less.

    Return None if neither is known.
    """
    left = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        left.append(_kibibytes(Path("/proc/meminfo"), "MemAvailable"))
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            left += _left_in_groups(controllers, path)
    return min(left, default=None)


def _kibibytes(path: Path, name: str) -> int:
    """Return the bytes that a line such as 'VmHWM:   1234 kB' of this file states."""
    return 1024 * int(next(line for line in path.read_text().splitlines() if line.startswith(name)).split()[1])


def _left_in_groups(controllers: str, path: str) -> list[int]:
    """Return the bytes left in a control group and in each group above it.

    Control groups of version 1 have the controller `memory`; those of version 2 name none.
    """
    if controllers not in ("", "memory"):
        return []
    root, limit, used = (Path("/sys/fs/cgroup"), "memory.max", "memory.current") if not controllers else (
        Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes")
    left, folder = [], root / path.lstrip("/")
    while folder != root.parent:
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            most = int((folder / limit).read_text())
            reclaimable = _file_cache(folder / "memory.stat")
            left.append(most - int((folder / used).read_text()) + reclaimable)
        folder = folder.parent
    return left


def _file_cache(path: Path) -> int:
    """Return the bytes of cached file pages that have not been used lately; the kernel frees them when needed."""
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0
