"""Measure the latency of a run's exported files in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_trgl.deploy import bench
from edge_trgl.run.export_record import Latencies
from edge_trgl.runtime.errors import InputError, OverBudgetError
from edge_trgl.runtime.memory import guard
from edge_trgl.runtime.memory.limits import Limits

RUNS = 200
SECONDS = 10.0


def measure_latency(paths: Sequence[Path], *, others_mb: float, limits: Limits) -> Latencies:
    """Run the files alternately (see `bench.side_by_side`) within the memory budget.

    Args:
        paths: ONNX files with the same batch size.
        others_mb: peak memory of the parent process, MiB.
        limits: for this process and its parent.

    Raises:
        InputError: a file cannot be run.
        OverBudgetError: the files do not fit the budget when all are loaded at once.
    """
    guard.set_guard(limits, others_mb)
    try:
        return bench.side_by_side(paths, runs=RUNS, seconds=SECONDS)
    except InputError as error:
        # `Network` reports every failure to load as an InputError; a refused allocation shows only as its cause.
        if error.__cause__ is not None and guard.refused(error.__cause__):
            raise OverBudgetError("the budget does not suffice to load all files at once") from error
        raise
