"""Clean pages of files, such as the code of libraries, which the process can return and get back unchanged.

A private mapping that is not writable and of which no page was ever written holds nothing that its file has not.
The kernel brings back the pages that are touched again, from its page cache or from the disk.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from edge_trgl.runtime.memory.without import without

SMAPS = Path("/proc/self/smaps")

_DONTNEED = 4
"""MADV_DONTNEED."""

_MIN_KB = 64
"""Mappings with less in memory are left alone: a call costs more than they give."""

_C_LIBRARY = ctypes.CDLL(None)
_C_LIBRARY.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def give_back() -> None:
    """Return all clean file pages of this process, unless it does without; takes some milliseconds.

    Call it before what makes a peak, not in every step: touching a page again costs a minor fault, and a major one
    if the page cache no longer has it.
    """
    if "file-pages" in without():
        return
    with SMAPS.open() as smaps:
        for start, size in clean_mappings(smaps):
            # Fails for mappings that are locked or special, which then stay as they are.
            _C_LIBRARY.madvise(start, size, _DONTNEED)


def clean_mappings(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield start and size in bytes of the mappings in `smaps` that can be returned without a loss.

    They are private, of a file, not writable, and have no anonymous page, in memory or swapped out: a page that
    was written before the mapping was protected, such as a relocated address, is in no file.

    Args:
        smaps: the lines of /proc/PID/smaps.
    """
    head: list[str] = []
    kb: dict[str, int] = {}
    for line in smaps:
        name, _, value = line.partition(":")
        if name in _COUNTED:
            kb[name] = int(value.split()[0])
        elif name == "VmFlags":  # the last line of each mapping
            readable, writable, private = head[1][0] == "r", head[1][1] == "w", head[1][3] == "p"
            of_file = len(head) > 5 and head[5].startswith("/")
            if of_file and readable and private and not writable and _is_clean(kb):
                start, end = (int(address, 16) for address in head[0].split("-"))
                yield start, end - start
        elif "-" in name:
            head = line.split(maxsplit=5)


def _is_clean(kb: Mapping[str, int]) -> bool:
    return kb["Rss"] >= _MIN_KB and kb["Anonymous"] == kb["Swap"] == kb["Locked"] == 0


_COUNTED = frozenset({"Rss", "Anonymous", "Swap", "Locked"})
