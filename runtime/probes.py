"""What was measured of kinds of modules, kept in the user's cache folder for the next run."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from edge_trgl.runtime import files
from edge_trgl.runtime.demand import Measurement
from edge_trgl.runtime.errors import StorageError


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
    with contextlib.suppress(StorageError, OSError):
        _path(key).parent.mkdir(parents=True, exist_ok=True)
        files.write_durable(_path(key), [json.dumps(asdict(measurement)).encode()])


def _path(key: str) -> Path:
    return cache_folder() / f"{key}.json"
