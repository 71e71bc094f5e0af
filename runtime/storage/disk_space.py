"""What a run's folder takes on its disk, and what the disk has left."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil

from edge_trgl.runtime.units import MIB

RESERVE_SHARE = 0.05
RESERVE_MB = 256.0
"""Left free where nobody says how much a run may take: this share of what is free, so many MiB at most."""

_STAT_BYTES = 512  # the unit of st_blocks, whatever the file system's own blocks are

HEADER_BYTES, HEADER_SHARE = 8192, 64
"""A module's file beyond its tensors, at most: names and shapes of a few dozen tensors; of more, a share."""

USUAL_BLOCK_BYTES, MAX_BLOCK_BYTES = 4096, 65_536
"""Of a file system: what most have, and the most that Linux mounts."""


def taken_mb(folder: Path, *, without: tuple[Path, ...] = ()) -> float:
    """MiB that `folder` takes on its disk, as `du` counts them; the folders `without` are left out.

    Files may come and go in the meantime.
    """
    return _blocks(folder, without) * _STAT_BYTES / MIB


def _blocks(path: Path, without: tuple[Path, ...]) -> int:
    try:
        entries = list(path.iterdir()) if path.is_dir() and not path.is_symlink() else []
        return path.lstat().st_blocks + sum(_blocks(entry, without) for entry in entries if entry not in without)
    except FileNotFoundError:
        return 0


def block_bytes(folder: Path) -> int:
    """What files grow by on the disk that holds `folder`."""
    found = os.statvfs(folder).f_frsize
    # Network file systems name what they transfer at once.
    return found if found <= MAX_BLOCK_BYTES else USUAL_BLOCK_BYTES


def in_blocks(num_bytes: int, block_bytes: int) -> int:
    """Bytes that a file of so many takes on a disk of such blocks."""
    return math.ceil(num_bytes / block_bytes) * block_bytes


def module_file(state: int, block_bytes: int) -> int:
    """Bytes that the file of a module with tensors of `state` bytes takes at most, in blocks of the disk."""
    return in_blocks(state + HEADER_BYTES + state // HEADER_SHARE, block_bytes)


def free_mb(folder: Path) -> float:
    """MiB that a process without privileges can still write on the disk that holds `folder`."""
    return float(psutil.disk_usage(str(folder)).free / MIB)


def limit_mb(folder: Path) -> float:
    """MiB that `folder` may take at most: what it takes and what is free on its disk, less the reserve."""
    free = free_mb(folder)
    return taken_mb(folder) + free - min(RESERVE_SHARE * free, RESERVE_MB)
