"""The exported files of a run, measured in turn in a process that has nothing else to do."""

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
    """Run the files in turn; see `bench.side_by_side` for the result.

    Args:
        paths: ONNX files of one batch.
        others_mb: the parent's peak in MiB.
        limits: for this process and its parent.

    Raises:
        InputError: a file cannot be run.
        OverBudgetError: the files do not fit the budget side by side.
    """
    guard.set_guard(limits, others_mb)
    try:
        return bench.side_by_side(paths, runs=RUNS, seconds=SECONDS)
    except InputError as error:
        # Whatever kept a file from being loaded comes as an InputError; a refused allocation is its cause.
        if error.__cause__ is not None and guard.refused(error.__cause__):
            raise OverBudgetError("the budget leaves no room to measure the files beside one another") from error
        raise
