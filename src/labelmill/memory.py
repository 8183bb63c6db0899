"""How glibc keeps memory: given back where pictures come and go, reused where a network runs on the CPU."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h of glibc
_LARGE_BYTES = 256 << 10
_INT_MAX = 2**31 - 1


@cache
def return_large_blocks() -> None:
    """Have every large block of memory, such as a picture, returned to the system when it is freed.

    glibc raises the size from which it does so to that of the largest block freed so far, up to 32 MiB; from
    then on pictures lie in heaps that fragment. On footage four times as long, the peak was 1.18 of that on
    it once; with a fixed threshold it is 1.03 (`python -m benchmarks.scaling`). Does nothing without glibc,
    nor after `reuse_large_blocks`.
    """
    if mallopt := _glibc("mallopt"):
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


@cache
def reuse_large_blocks() -> None:
    """Keep large blocks for the next that ask, until `return_free_memory`.

    Each layer of a network asks for blocks like those that the layer before it freed. A block that comes from
    the system is cleared page by page at first touch, which took up to three quarters of all time
    (`python -m benchmarks.network_memory`). Does nothing without glibc.
    """
    if mallopt := _glibc("mallopt"):
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _INT_MAX)


def return_free_memory() -> None:
    """Give the system every page that is free now; takes milliseconds. Does nothing without glibc."""
    if malloc_trim := _glibc("malloc_trim"):
        malloc_trim(0)


@cache
def _glibc(name: str) -> Any:
    """A function of glibc; None elsewhere."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
