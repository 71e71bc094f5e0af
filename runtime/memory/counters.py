"""Counters of this process and of the machine, read through psutil, in MiB.

The high-water mark, which psutil does not read on Linux, is in `high_water`.
"""

from __future__ import annotations

import functools
import os
import resource
from dataclasses import dataclass

import psutil

from edge_trgl.runtime.units import MIB


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The memory of one process, in MiB.

    Attributes:
        rss: resident now, `anonymous` + `file`.
        anonymous: of it, private memory that no file backs.
        file: of it, pages of files, and shared memory.
        data: private writable memory that is mapped, resident or not, and the stack.
    """

    rss: float
    anonymous: float
    file: float
    data: float


def usage() -> Usage:
    """The memory of this process now."""
    info = _process(os.getpid()).memory_info()
    return Usage(
        rss=info.rss / MIB,
        anonymous=(info.rss - info.shared) / MIB,
        file=info.shared / MIB,
        data=info.data / MIB,
    )


def page_faults() -> int:
    """Pages that this process has got so far: while they are no more, its resident memory has not grown."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_minflt + used.ru_majflt


def io_mb() -> tuple[float, float]:
    """MiB that this process has read and written since it began.

    Read: from files and pipes, the page cache included. Written: what is sent to a disk, in whole pages. Pages
    that are removed before the kernel has sent them count too; file systems in memory do not.
    """
    counts = _process(os.getpid()).io_counters()
    return counts.read_chars / MIB, counts.write_bytes / MIB


def major_faults() -> int:
    """Number of times that this process waited for a page from a disk, such as code the page cache had lost."""
    # psutil does not count them on Linux.
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def available_mb() -> float:
    """MiB that a new process can have without swapping: MemAvailable, on Jetson too."""
    return float(psutil.virtual_memory().available / MIB)


def total_mb() -> float:
    """MiB of the machine's memory."""
    return float(psutil.virtual_memory().total / MIB)


def num_cpus() -> int:
    """Number of CPUs that this process may use."""
    return len(_process(os.getpid()).cpu_affinity())


@functools.cache
def _process(pid: int) -> psutil.Process:
    # By number, for after a fork the parent's object would still be there and count the parent.
    return psutil.Process(pid)
