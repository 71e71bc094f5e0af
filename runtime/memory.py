"""What a process uses now and at most, as the kernel counts it.

RSS = RssAnon + RssFile + RssShmem of /proc/PID/status, in MiB throughout. VmHWM keeps every peak that polling
would miss; writing 5 to /proc/self/clear_refs resets it, so that a phase has a peak of its own.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
MEMINFO = Path("/proc/meminfo")
MAPS = Path("/proc/self/maps")

_C_LIBRARY = ctypes.CDLL(None)
_C_LIBRARY.sbrk.restype = ctypes.c_void_p

_NO_HUGE_PAGES = 15
"""MADV_NOHUGEPAGE."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """One process, in MiB: resident now and at most, by kind, and the private writable memory it has mapped."""

    rss: float
    anonymous: float
    file: float
    shared: float
    peak: float
    data: float


def read_kib(path: Path, names: tuple[str, ...]) -> dict[str, int]:
    """The named `Name:   123 kB` lines of a /proc file, in KiB; absent ones are absent."""
    found = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in names:
            found[name] = int(rest.split()[0])
    return found


def usage(status: Path = STATUS) -> Usage:
    """The memory of the process that `status` describes."""
    names = ("VmRSS", "RssAnon", "RssFile", "RssShmem", "VmHWM", "VmData")
    kib = read_kib(status, names)
    rss, anonymous, file, shared, peak, data = (kib.get(name, 0) / 1024 for name in names)
    return Usage(rss=rss, anonymous=anonymous, file=file, shared=shared, peak=peak, data=data)


def available_mb(meminfo: Path = MEMINFO) -> float:
    """MiB that a new process can have without swapping: MemAvailable, on Jetson too."""
    return read_kib(meminfo, ("MemAvailable",)).get("MemAvailable", 0) / 1024


class Meter:
    """The peak of this process over phases, accumulated before each reset of the kernel's high-water mark.

    `highest`: MiB at most, as of the last reading.
    """

    def __init__(self, clear_refs: Path = CLEAR_REFS, status: Path = STATUS) -> None:
        self._clear_refs = clear_refs
        self._status = status
        self.highest = 0.0

    @contextmanager
    def phase(self) -> Iterator[None]:
        """Give what runs inside a high-water mark of its own; `read` tells it until the next phase."""
        self.read()
        with suppress(OSError):  # some containers forbid it: the mark then simply never falls
            self._clear_refs.write_text("5")
        yield

    def read(self) -> float:
        """MiB at most since the last phase began."""
        peak = usage(self._status).peak
        self.highest = max(self.highest, peak)
        return peak


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


def allocator_environment() -> dict[str, str]:
    """Settings, read by allocators when a process starts, that give freed memory back at once.

    glibc: a fixed mmap threshold, for the default one grows with use and then keeps what was freed. What is larger
    comes in huge pages where the kernel has them: a tensor is mapped anew each time, and page by page that took a
    third of a step. What is smaller stays on the heap: 5 MiB more than with a threshold of 64 KiB, and a step of
    a narrow net is a quarter shorter (both measured on x86).
    mimalloc: what torch allocates with on AArch64.
    """
    return {
        "MALLOC_MMAP_THRESHOLD_": str(1024 * 1024),
        "MALLOC_TRIM_THRESHOLD_": str(64 * 1024),
        "MALLOC_ARENA_MAX": "1",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "MIMALLOC_PURGE_DELAY": "0",
    }


def io_mb() -> tuple[float, float]:
    """MiB that this process has read and written since it began.

    Read: from files and pipes, the page cache included. Written: what a disk gets, in whole pages; what is removed
    before the kernel has sent it is counted too, and nothing on file systems in memory.
    """
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"]) / MIB, int(counts["write_bytes"]) / MIB


def page_size() -> int:
    """Bytes of a memory page."""
    return os.sysconf("SC_PAGE_SIZE")
