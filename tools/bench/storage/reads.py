"""Measure the processor time of reading a boundary, from memory, ahead, and by way of the page cache.

    python -m tools.bench.storage.reads FOLDER MB EPOCHS

prints a line of JSON an epoch: by way, the CPU seconds of all threads while the boundary was read in the order of
training, with a pause after each batch in which a thread can read.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_trgl.runtime.memory.allocator_settings import allocator_environment
from tools.bench.regime_runs import Bench
from tools.bench.storage.scale import Scale, target
from tools.common.programs import program

SHAPE, BATCH = (64, 14, 14), 64
RECORD_BYTES = 4 * SHAPE[0] * SHAPE[1] * SHAPE[2]
PAUSE_S = 0.005

MEMORY, AHEAD, CACHE = "in memory", "read ahead", "by way of the page cache"
WAYS = (MEMORY, AHEAD, CACHE)

SIZE_MB, EPOCHS = 192, 9


def measure(bench: Bench, scale: Scale) -> dict[str, Any]:
    """Median CPU milliseconds per MB, by way, with what they come from."""
    size, epochs = (70, 2) if scale.quick else (SIZE_MB, EPOCHS)
    command = program("bench.storage.reads", str(scale.scratch / "reads"), str(size), str(epochs))
    environment = {**os.environ, **allocator_environment(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {
        "mb": size,
        "ms_per_mb": {way: 1000 * statistics.median(row[way] for row in rows) / size for way in WAYS},
        "cpu_seconds": rows,
    }


def judge(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Reading ahead takes no more than the page cache does, which is what it replaces."""
    spent = found["ms_per_mb"]
    share = (spent[AHEAD] - spent[MEMORY]) / (spent[CACHE] - spent[MEMORY])
    return [
        target("reading ahead, CPU time beyond that in memory / the same by way of the page cache", share, 1.0)
    ]


def lines(found: Mapping[str, Any]) -> Sequence[str]:
    """Format the results as lines of text."""
    return [
        f"reads     {way}: {value:.3f} ms of CPU per MB ({found['mb']} MB)"
        for way, value in found["ms_per_mb"].items()
    ]


def main() -> None:
    """Read epochs, the ways taking turns."""
    import numpy as np
    import torch

    from edge_trgl.data import stored_order, windowed_order
    from edge_trgl.runtime.storage.activation_store import ActivationStore, Boundary
    from edge_trgl.runtime.storage.boundary_spec import BoundarySpec

    folder, size, epochs = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    num_samples = int(size * 1e6) // RECORD_BYTES // BATCH * BATCH
    values = torch.randn(BATCH, *SHAPE).contiguous(memory_format=torch.channels_last)
    folder.mkdir()

    def made(way: str) -> Boundary:
        store = ActivationStore(folder / str(WAYS.index(way)), num_samples, BATCH, ahead=way == AHEAD)
        spec = BoundarySpec(
            name="read", shape=SHAPE, dtype="float32", records=num_samples, in_memory=way == MEMORY
        )
        boundary = store.create(spec)
        stored = stored_order(num_samples, 0)
        for start in range(0, num_samples, BATCH):
            boundary.append(stored[start : start + BATCH], values)
        store.commit()
        return boundary

    def cpu_seconds(boundary: Boundary, epoch: int) -> float:
        order = windowed_order(num_samples, 0, epoch, boundary.spec.chunk_records)
        began = time.process_time()
        for start in range(0, num_samples, BATCH):
            stop = start + BATCH
            boundary.read(order[start:stop], then=order[stop : stop + boundary.window])
            time.sleep(PAUSE_S)
        assert len(np.unique(order)) == num_samples
        return time.process_time() - began

    boundaries = {way: made(way) for way in WAYS}
    for epoch in range(epochs):
        sys.stdout.write(json.dumps({way: cpu_seconds(boundaries[way], epoch) for way in WAYS}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
