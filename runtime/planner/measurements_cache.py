"""Measurements of kinds of modules and of disks, kept in the user's cache folder for later runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.planner.demand import Measurement
from edge_trgl.runtime.storage import files, storage_speed
from edge_trgl.runtime.storage.storage_speed import StorageSpeed
from edge_trgl.runtime.units import MIB

DISK_BYTES = 16 * MIB
"""Bytes written once to a disk without a profile: enough to put layouts in order, at little wear."""


def cache_folder() -> Path:
    """Where measurements are kept: $XDG_CACHE_HOME/edge-trgl/probes, or the same below ~/.cache."""
    # The specification of that variable: a relative path is to be ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "edge-trgl" / "probes"


def recall(keys: Iterable[str]) -> dict[str, Measurement]:
    """The measurements of those `keys` that were measured here before."""
    found = {}
    for key in keys:
        # A measurement that cannot be read is made again.
        with contextlib.suppress(OSError, ValueError, TypeError):
            found[key] = Measurement(**json.loads(_path(key).read_text()))
    return found


def keep(key: str, measurement: Measurement) -> None:
    """Keep a measurement, if the folder can be written."""
    _keep(key, measurement)


def disk_speed(folder: Path) -> StorageSpeed | None:
    """The speed of the disk that holds `folder`, measured the first time; None if it cannot be measured."""
    key = f"disk-{hashlib.sha256(storage_speed.kind(folder).encode()).hexdigest()[:16]}"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return StorageSpeed(**json.loads(_path(key).read_text()))
    with contextlib.suppress(StorageError):
        found = storage_speed.measure(folder, max_bytes=DISK_BYTES)
        _keep(key, found)
        return found
    return None


def _keep(key: str, record: Measurement | StorageSpeed) -> None:
    with contextlib.suppress(StorageError, OSError):
        _path(key).parent.mkdir(parents=True, exist_ok=True)
        files.write_durable(_path(key), [json.dumps(asdict(record)).encode()])


def _path(key: str) -> Path:
    return cache_folder() / f"{key}.json"
