"""How much a run's folder takes on its disk, and how much is free."""

from __future__ import annotations

from pathlib import Path

import psutil

from edge_trgl.runtime.units import MIB

RESERVE_SHARE = 0.05
RESERVE_MB = 256.0
"""Part of the free space that is left unused if the run has no disk limit, at most `RESERVE_MB` MiB."""

_STAT_BYTES = 512  # the unit of st_blocks on every file system


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


def free_mb(folder: Path) -> float:
    """MiB that an unprivileged process can still write to the disk that holds `folder`."""
    return float(psutil.disk_usage(str(folder)).free / MIB)


def limit_mb(folder: Path) -> float:
    """MiB that `folder` may take: what it takes now and what is free on its disk, less the reserve."""
    free = free_mb(folder)
    return taken_mb(folder) + free - min(RESERVE_SHARE * free, RESERVE_MB)
