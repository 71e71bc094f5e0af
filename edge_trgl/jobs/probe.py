"""Measure the works that a plan rests on, in a process of its own."""

from __future__ import annotations

from typing import Any

from edge_trgl.planning import measure
from edge_trgl.run.folder import Run
from edge_trgl.runtime.planner.planner import Wanted


def run(run: Run, wanted: list[dict[str, Any]], budget_mb: float) -> None:
    """See `measure.measure`."""
    measure.measure(run, [Wanted(**one) for one in wanted], budget_mb)
