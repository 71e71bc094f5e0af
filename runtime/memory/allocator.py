"""How the C library keeps and returns freed memory: settings, trimming, huge pages."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Literal

from edge_trgl.runtime.units import MIB

MAPS = Path("/proc/self/maps")
HUGE_PAGE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")

_C_LIBRARY = ctypes.CDLL(None)
_C_LIBRARY.sbrk.restype = ctypes.c_void_p

_NO_HUGE_PAGES = 15
"""MADV_NOHUGEPAGE."""

Allocator = Literal["heap", "huge", "default"]
"""How a process that computes allocates tensors, and what happens to them when they are freed.

heap: tensors lie on the heap and reuse freed blocks; free memory at the end of the heap is returned to the system.
huge: each tensor is mapped anew, in huge pages where the kernel has small ones of these, and is returned to the
system as soon as it is freed. default: the C library's own settings.

A step with small tensors takes 0.7 to 0.8 times as long on the heap as with mapped tensors, at a peak within 2 %
(K-M of width 64, ResNet-110 at 28x28). With larger ones it takes 0.9 times as long, but fragmentation makes peaks
4 to 7 % higher than the steps measured for the plan (K-M of width 256, MobileNetV2). A heap in huge pages takes 5
to 30 MiB more. All measured on x86.
"""

SMALL_BYTES = 4 * MIB
"""Tensors go on the heap where those of most modules are smaller than this, and all others than twice this."""

_LARGEST_ON_HEAP_BYTES = 32 * MIB
"""The largest block that glibc may allocate on the heap; there are a few larger tensors among small ones."""

_TOP_BYTES = 8 * MIB
"""Free memory that stays at the end of the heap. With less, each step returns memory that the next asks for
again."""

_MAX_HUGE_BYTES = 2 * MIB
"""The largest huge page that is used. The heap grows by whole huge pages, which are 32 MiB where a page has 16 KiB
(as on the Raspberry Pi 5) and 512 MiB where it has 64 KiB."""

_THRESHOLD, _TUNABLES, _HUGE_PAGES = "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
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


def allocator_environment(allocator: Allocator = "heap", huge_page: Path = HUGE_PAGE) -> dict[str, str]:
    """Environment variables for a new process that make its allocators return freed memory to the system.

    glibc gets a fixed mmap threshold. The default one grows with use, and memory below it is kept when it is
    freed: peaks came out up to 9 % above the steps measured for the plan.

    mimalloc, torch's allocator on AArch64 since 2.10, ignores glibc's settings. It returns all memory at once,
    which makes repeated blocks of a MiB take four times as long. Its arenas of a GiB, mapped writable as a whole,
    would count as used in the guard: 128 MiB of tensors mapped 1,038 MiB of data, and 206 with this setting (torch
    2.10, emulated).
    """
    if allocator == "default":
        return {}
    settings = {
        _THRESHOLD: str(MIB),
        "MALLOC_TRIM_THRESHOLD_": str(64 * 1024),
        "MALLOC_ARENA_MAX": "1",
        "MIMALLOC_PURGE_DELAY": "0",
        "MIMALLOC_ARENA_EAGER_COMMIT": "0",
    }
    if allocator == "heap":
        return settings
    # 0 is glibc's default; that it is set tells `keep_tensors_on_heap` which allocator was chosen.
    return {**settings, _TUNABLES: f"{_HUGE_PAGES}={int(_huge_bytes(huge_page) <= _MAX_HUGE_BYTES)}"}


def _huge_bytes(huge_page: Path) -> int:
    """Bytes of a huge page; 0 where the kernel has none."""
    try:
        return int(huge_page.read_text())
    except FileNotFoundError:
        return 0


def keep_tensors_on_heap() -> None:
    """Allocate tensors on the heap from now on, in a process started with the allocator "heap"; else do nothing.

    Call it when all libraries are loaded: what they allocate would lie between the tensors and fragment the heap.
    """
    environment = os.environ
    if _THRESHOLD not in environment or _HUGE_PAGES in environment.get(_TUNABLES, ""):
        return
    option = getattr(_C_LIBRARY, "mallopt", None)
    if option is not None:
        trim()
        option(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP_BYTES)
        option(_M_TRIM_THRESHOLD, _TOP_BYTES)
