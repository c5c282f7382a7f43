"""Memory that the C library keeps for reuse."""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
ONE_GIB = 1 << 30


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks of up to 1 GiB instead of giving them back to the kernel.

    A network on a CPU frees and takes the same large blocks at every layer; faulting their pages in anew takes as long
    as the convolutions (docs/decisions.md). Elsewhere than on glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, ONE_GIB)
        libc.mallopt(M_TRIM_THRESHOLD, ONE_GIB)
