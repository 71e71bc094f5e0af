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

Allocator = Literal["held", "huge", "own"]
"""What becomes of freed memory in a process that computes.

held: tensors lie on the heap, and the next ones take their places; what is free at its end goes back. huge: each
tensor is mapped anew, in huge pages where the kernel has small ones of these, and goes back at once. own: as the C
library has it.

Of small tensors a step on the heap took 0.7 to 0.8 of the time of one that maps them anew, with peaks within 2 %
(K-M of width 64, ResNet-110 at 28x28). Of larger ones it took 0.9, and the heap's holes made peaks 4 to 7 % higher
than the steps had been that were measured for the plan (K-M of width 256, MobileNetV2). A heap in huge pages takes
5 to 30 MiB more. All measured on x86.
"""

SMALL_BYTES = 4 * MIB
"""Where a heap is made of them, the tensors of most modules are smaller than this, all others than twice this."""

_HELD_BYTES = 32 * MIB
"""The largest block that glibc lets the heap have: among small tensors, some are larger."""

_TOP_BYTES = 8 * MIB
"""So much may stay free at the end of the heap: less, and steps give back what they ask for again."""

_MAX_HUGE_BYTES = 2 * MIB
"""The largest huge page that is worth having: the heap grows by whole ones, which are 32 MiB where a page has 16
KiB (as on the Raspberry Pi 5) and 512 where it has 64."""

_THRESHOLD, _TUNABLES, _HUGE_PAGES = "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def trim() -> None:
    """Give freed heap back to the kernel, where the C library can (glibc)."""
    release = getattr(_C_LIBRARY, "malloc_trim", None)
    if release is not None:
        release(0)
        keep_holes()


def keep_holes() -> None:
    """Keep the kernel from filling the heap's free places, as the heap is now, with huge pages; it takes 2 µs.

    What the allocator asks huge pages for, the kernel turns into them in the background, with holes and all: in a
    net of many small tensors the memory grew by 15 MiB a minute. What the heap is extended by comes in huge pages
    as before.
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


def allocator_environment(allocator: Allocator = "held", huge_page: Path = HUGE_PAGE) -> dict[str, str]:
    """Settings, read by allocators when a process starts, that make them give freed memory back.

    glibc: a fixed mmap threshold, for the default one grows with use and then keeps what was freed: trained
    modules left their places behind, and peaks came out up to 9 % above what steps had taken when they were
    measured. mimalloc: what torch allocates with on AArch64 since 2.10. Nothing of glibc's reaches its tensors:
    it gives all back at once (repeated blocks of a MiB take four times as long), and arenas of a GiB, mapped
    writable as a whole, would be slack of that size in the guard: 128 MiB of tensors mapped 1,038 MiB of data,
    and 206 with this setting (torch 2.10, emulated).
    """
    if allocator == "own":
        return {}
    settings = {
        _THRESHOLD: str(MIB),
        "MALLOC_TRIM_THRESHOLD_": str(64 * 1024),
        "MALLOC_ARENA_MAX": "1",
        "MIMALLOC_PURGE_DELAY": "0",
        "MIMALLOC_ARENA_EAGER_COMMIT": "0",
    }
    if allocator == "held":
        return settings
    # 0 is glibc's own setting; that it is there tells `hold_freed` what was asked for.
    return {**settings, _TUNABLES: f"{_HUGE_PAGES}={int(_huge_bytes(huge_page) <= _MAX_HUGE_BYTES)}"}


def _huge_bytes(huge_page: Path) -> int:
    """Of a huge page; 0 where the kernel has none."""
    try:
        return int(huge_page.read_text())
    except FileNotFoundError:
        return 0


def hold_freed() -> None:
    """Let the heap have the tensors from here on, where this process was started with the allocator "held".

    Called when all is loaded, for what is loaded would leave holes between the tensors.
    """
    environment = os.environ
    if _THRESHOLD not in environment or _HUGE_PAGES in environment.get(_TUNABLES, ""):
        return
    option = getattr(_C_LIBRARY, "mallopt", None)
    if option is not None:
        trim()
        option(_M_MMAP_THRESHOLD, _HELD_BYTES)
        option(_M_TRIM_THRESHOLD, _TOP_BYTES)
