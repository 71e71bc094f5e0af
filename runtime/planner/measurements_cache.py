"""What was measured of kinds of modules and of disks, kept in the user's cache folder for the next run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.planner.demand import Measurement
from edge_trgl.runtime.storage import files, storage_speed
from edge_trgl.runtime.storage.storage_speed import StorageSpeed
from edge_trgl.runtime.units import MIB

DISK_BYTES = 16 * MIB
"""Written once to a disk that no profile tells of: enough to put layouts in order, and little wear."""


def cache_folder() -> Path:
    """Where measurements are kept: $XDG_CACHE_HOME/edge-trgl/probes, or the same below ~/.cache."""
    # The specification of that variable: a relative path is none.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "edge-trgl" / "probes"


def recall(keys: Iterable[str]) -> dict[str, Measurement]:
    """Those of `keys` that have been measured here before."""
    found = {}
    for key in keys:
        # Losing a measurement costs a probe: what cannot be read was never there.
        with contextlib.suppress(OSError, ValueError, TypeError):
            found[key] = Measurement(**json.loads(_path(key).read_text()))
    return found


def keep(key: str, measurement: Measurement) -> None:
    """Keep a measurement, if the folder can be written."""
    _keep(key, asdict(measurement))


def disk_speed(folder: Path) -> StorageSpeed | None:
    """The speed of the disk that holds `folder`, measured where it never was; None where it cannot be."""
    key = f"disk-{hashlib.sha256(storage_speed.kind(folder).encode()).hexdigest()[:16]}"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return StorageSpeed(**json.loads(_path(key).read_text()))
    with contextlib.suppress(StorageError):
        found = storage_speed.measure(folder, max_bytes=DISK_BYTES)
        _keep(key, asdict(found))
        return found
    return None


def _keep(key: str, document: dict[str, Any]) -> None:
    with contextlib.suppress(StorageError, OSError):
        _path(key).parent.mkdir(parents=True, exist_ok=True)
        files.write_durable(_path(key), [json.dumps(document).encode()])


def _path(key: str) -> Path:
    return cache_folder() / f"{key}.json"
