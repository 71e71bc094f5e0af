"""Count what each module costs, and store the run's demand."""

from __future__ import annotations

from edge_trgl.planning import demand
from edge_trgl.run.folder import Run


def run(run: Run, budget_mb: float | None) -> None:
    """See `demand.store_demand`."""
    demand.store_demand(run, budget_mb)
