"""The training process: train what is left to train, then evaluate."""

from __future__ import annotations

from typing import Any

from edge_trgl.engine import training
from edge_trgl.run.folder import Run


def run(run: Run, budget_mb: float) -> dict[str, Any]:
    """Train within `budget_mb`; returns what the summary needs of this process."""
    return training.run(run, budget_mb)
