"""How the C library keeps and returns freed memory in this process: trimming, huge pages, where tensors go."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

from edge_trgl.runtime.memory.allocator_settings import HUGE_PAGES, THRESHOLD, TUNABLES
from edge_trgl.runtime.units import MIB

MAPS = Path("/proc/self/maps")

_C_LIBRARY = ctypes.CDLL(None)
_C_LIBRARY.sbrk.restype = ctypes.c_void_p

_NO_HUGE_PAGES = 15
"""MADV_NOHUGEPAGE."""

SMALL_BYTES = 4 * MIB
"""Tensors go on the heap where those of most modules are smaller than this, and all others than twice this."""

_LARGEST_ON_HEAP_BYTES = 32 * MIB
"""The largest block that glibc may allocate on the heap; there are a few larger tensors among small ones."""

_TOP_BYTES = 8 * MIB
"""Free memory that stays at the end of the heap. With less, each step returns memory that the next asks for
again."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def trim() -> None:
    """Return free heap memory to the system, where the C library can (glibc)."""
    release = getattr(_C_LIBRARY, "malloc_trim", None)
    if release is not None:
        release(0)
        no_huge_pages_in_heap()


def no_huge_pages_in_heap() -> None:
    """Keep the kernel from making huge pages of the heap as it is now; it takes 2 µs.

    Where the allocator asks for huge pages, the kernel makes them in the background, over free blocks too: in a
    net of many small tensors the memory grew by 15 MiB a minute. What the heap is extended by still comes in huge
    pages.
    """
    start = _heap_start()
    if start is not None:
        size = (_C_LIBRARY.sbrk(0) or start) - start
        _C_LIBRARY.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _NO_HUGE_PAGES)


@functools.cache
def _heap_start() -> int | None:
    for line in MAPS.read_text().splitlines():
        if line.endswith("[heap]"):
            return int(line.split("-")[0], 16)
    return None


def keep_tensors_on_heap() -> None:
    """Allocate tensors on the heap from now on, in a process started with the allocator "heap"; else do nothing.

    Call it when all libraries are loaded: what they allocate would lie between the tensors and fragment the heap.
    """
    environment = os.environ
    if THRESHOLD not in environment or HUGE_PAGES in environment.get(TUNABLES, ""):
        return
    option = getattr(_C_LIBRARY, "mallopt", None)
    if option is not None:
        trim()
        option(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP_BYTES)
        option(_M_TRIM_THRESHOLD, _TOP_BYTES)
