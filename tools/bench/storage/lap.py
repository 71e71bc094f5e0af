"""Measure page cache and process memory while a large boundary is written and read, lap by lap.

    python -m tools.bench.storage.lap FOLDER GB LAPS

prints a line of JSON a lap: the most MiB of the file that were in the page cache while it was written and read,
and MiB of the process at its end.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_trgl.runtime.memory.allocator_settings import allocator_environment
from edge_trgl.runtime.units import MIB
from tools.bench.regime_runs import Bench
from tools.bench.storage.scale import Scale, target
from tools.common.programs import program

SHAPE, BATCH = (64, 14, 14), 64

WHOLE, LAPS = (2.0, 1), (0.25, 20)
"""GB of the file, and laps."""


def measure(bench: Bench, scale: Scale) -> dict[str, Any]:
    """A lap with 2 GB, and 20 laps with a file that is large enough not to be left to the page cache."""
    cases = ((0.1, 1), (0.1, 3)) if scale.quick else (WHOLE, LAPS)
    found = {}
    for number, (size, laps) in enumerate(cases):
        command = program("bench.storage.lap", str(scale.scratch / f"lap{number}"), str(size), str(laps))
        environment = {**os.environ, **allocator_environment()}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        found[f"{size:g} GB"] = {
            "laps": laps,
            "cached_mb": max(row["cached_mb"] for row in rows),
            "rss_mb": [row["rss_mb"] for row in rows],
            "buffer_mb": BATCH * 4 * SHAPE[0] * SHAPE[1] * SHAPE[2] / MIB,
        }
    return found


def judge(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """A page cache of 64 MB at most; a process that does not grow."""
    targets = []
    for name, one in found.items():
        cached_mb = one["cached_mb"] * MIB / 1e6
        targets.append(target(f"boundary of {name}: MB in the page cache at most", cached_mb, 64))
        grown_mb = one["rss_mb"][-1] - one["rss_mb"][min(2, len(one["rss_mb"]) - 1)]
        if one["laps"] > 2:
            targets.append(target(f"boundary of {name}: MiB of RSS, lap {one['laps']} less lap 3", grown_mb, 1))
    return targets


def lines(found: Mapping[str, Any]) -> Sequence[str]:
    """Format the results as lines of text."""
    return [
        f"cache     boundary of {name}, {one['laps']} laps: {one['cached_mb']:.0f} MiB in the page cache at most, "
        f"process {one['rss_mb'][0]:.0f} to {one['rss_mb'][-1]:.0f} MiB"
        for name, one in found.items()
    ]


def main() -> None:
    """Write and read a boundary in the order of training."""
    import numpy as np
    import psutil
    import torch

    from edge_trgl.data import stored_order, windowed_order
    from edge_trgl.runtime.storage.activation_store import ActivationStore
    from edge_trgl.runtime.storage.boundary_spec import BoundarySpec

    folder, size, laps = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    num_samples = int(size * 1e9) // (4 * SHAPE[0] * SHAPE[1] * SHAPE[2]) // BATCH * BATCH
    store = ActivationStore(folder, num_samples, BATCH)
    values = torch.randn(BATCH, *SHAPE).contiguous(memory_format=torch.channels_last)
    for lap in range(laps):
        spec = BoundarySpec(name=f"lap{lap}", shape=SHAPE, dtype="float32", records=num_samples)
        boundary, most = store.create(spec), 0
        stored = stored_order(num_samples, 0)
        for number, start in enumerate(range(0, num_samples, BATCH)):
            boundary.append(stored[start : start + BATCH], values)
            if number % 8 == 0:
                most = max(most, _cached_bytes(boundary.path))
        order = windowed_order(num_samples, 0, lap, spec.chunk_records)
        for number, start in enumerate(range(0, num_samples, BATCH)):
            stop = start + BATCH
            boundary.read(order[start:stop], then=order[stop : stop + boundary.window])
            if number % 8 == 0:
                most = max(most, _cached_bytes(boundary.path))
        assert np.array_equal(np.sort(order), np.arange(num_samples))
        store.commit()
        store.drop(spec.name)
        store.commit()
        store.sweep()
        row = {"cached_mb": most / MIB, "rss_mb": psutil.Process().memory_info().rss / MIB}
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


def _cached_bytes(path: Path) -> int:
    """Of a file, in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = path.stat().st_size
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        start = ctypes.c_char.from_buffer(mapped)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), pages)
        del start
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return sum(page & 1 for page in bytes(pages)) * mmap.PAGESIZE


if __name__ == "__main__":
    main()
