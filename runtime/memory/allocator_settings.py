"""How the C library of a new process keeps and returns freed memory: the settings in its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from edge_trgl.runtime.units import MIB

HUGE_PAGE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")

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

_MAX_HUGE_BYTES = 2 * MIB
"""The largest huge page that is used. The heap grows by whole huge pages, which are 32 MiB where a page has 16 KiB
(as on the Raspberry Pi 5) and 512 MiB where it has 64 KiB."""

THRESHOLD, TUNABLES, HUGE_PAGES = "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


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
        THRESHOLD: str(MIB),
        "MALLOC_TRIM_THRESHOLD_": str(64 * 1024),
        "MALLOC_ARENA_MAX": "1",
        "MIMALLOC_PURGE_DELAY": "0",
        "MIMALLOC_ARENA_EAGER_COMMIT": "0",
    }
    if allocator == "heap":
        return settings
    # 0 is glibc's default; that it is set tells `keep_tensors_on_heap` which allocator was chosen.
    return {**settings, TUNABLES: f"{HUGE_PAGES}={int(_huge_bytes(huge_page) <= _MAX_HUGE_BYTES)}"}


def _huge_bytes(huge_page: Path) -> int:
    """Bytes of a huge page; 0 where the kernel has none."""
    try:
        return int(huge_page.read_text())
    except FileNotFoundError:
        return 0
