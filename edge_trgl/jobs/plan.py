"""Choose the plan of a run. No torch here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edge_trgl.planning import choose
from edge_trgl.planning.choose import Refused
from edge_trgl.run.folder import Run


def run(run: Run, budget_mb: float | None, disk_mb: float, *, refused: Refused | None = None) -> dict[str, Any]:
    """See `choose.choose`."""
    return asdict(choose.choose(run, budget_mb, disk_mb, refused=refused))
