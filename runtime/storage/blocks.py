"""Sizes of files on the disk, in whole blocks."""

from __future__ import annotations

import math
import os
from pathlib import Path

HEADER_BYTES, HEADER_SHARE = 8192, 64
"""Upper bound of a module's file beyond its tensors: the header of a few dozen of them; a share for more."""

USUAL_BLOCK_BYTES, MAX_BLOCK_BYTES = 4096, 65_536
"""Block size of most file systems, and the largest that Linux mounts."""


def block_bytes(folder: Path) -> int:
    """Block size of the disk that holds `folder`, in bytes."""
    size = os.statvfs(folder).f_frsize
    # Network file systems report the size of their transfers here.
    return size if size <= MAX_BLOCK_BYTES else USUAL_BLOCK_BYTES


def in_blocks(num_bytes: int, block_bytes: int) -> int:
    """Round `num_bytes` up to whole blocks."""
    return math.ceil(num_bytes / block_bytes) * block_bytes


def module_file(state: int, block_bytes: int) -> int:
    """Upper bound of the file of a module with tensors of `state` bytes, in whole blocks."""
    return in_blocks(state + HEADER_BYTES + state // HEADER_SHARE, block_bytes)
