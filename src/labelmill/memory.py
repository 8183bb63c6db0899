"""Giving memory back, so that a long run needs no more of it than a short one."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_MMAP_THRESHOLD = -3  # malloc.h of glibc
_LARGE_BYTES = 256 << 10


@cache
def return_large_blocks() -> None:
    """Have every large block of memory, such as a picture, returned to the system when it is freed.

    glibc raises the size from which it does so to that of the largest block freed so far, up to 32 MiB; from
    then on pictures lie in heaps that fragment. On footage four times as long, the peak was 1.18 of that on
    it once; with a fixed threshold it is 1.03 (`python -m benchmarks.scaling`). Does nothing without glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
