"""The job `latency`: measure the exported files of a run in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_trgl.deploy.latency import measure_latency
from edge_trgl.run.folder import Run


def run(run: Run, *, names: Sequence[str], others_mb: float, budget_mb: float) -> dict[str, Any]:
    """Measure the files `names` in the run's folder; see `measure_latency`."""
    return measure_latency([run.folder / name for name in names], others_mb=others_mb, budget_mb=budget_mb)
