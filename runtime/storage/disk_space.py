"""How much a run's folder takes on its disk, and how much is free."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil

from edge_trgl.runtime.units import MIB

RESERVE_SHARE = 0.05
RESERVE_MB = 256.0
"""Part of the free space that is left unused if the run has no disk limit, at most `RESERVE_MB` MiB."""

_STAT_BYTES = 512  # the unit of st_blocks on every file system

HEADER_BYTES, HEADER_SHARE = 8192, 64
"""Upper bound of a module's file beyond its tensors: the header of a few dozen of them; a share for more."""

USUAL_BLOCK_BYTES, MAX_BLOCK_BYTES = 4096, 65_536
"""Block size of most file systems, and the largest that Linux mounts."""


def taken_mb(folder: Path, *, without: tuple[Path, ...] = ()) -> float:
    """MiB that `folder` takes on its disk, as `du` counts them, without the folders `without`.

    Files may appear and disappear in the meantime.
    """
    return _blocks(folder, without) * _STAT_BYTES / MIB


def _blocks(path: Path, without: tuple[Path, ...]) -> int:
    try:
        entries = list(path.iterdir()) if path.is_dir() and not path.is_symlink() else []
        return path.lstat().st_blocks + sum(_blocks(entry, without) for entry in entries if entry not in without)
    except FileNotFoundError:
        return 0


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


def free_mb(folder: Path) -> float:
    """MiB that an unprivileged process can still write to the disk that holds `folder`."""
    return float(psutil.disk_usage(str(folder)).free / MIB)


def limit_mb(folder: Path) -> float:
    """MiB that `folder` may take: what it takes now and what is free on its disk, less the reserve."""
    free = free_mb(folder)
    return taken_mb(folder) + free - min(RESERVE_SHARE * free, RESERVE_MB)
