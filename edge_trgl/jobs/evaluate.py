"""Score a trained run again, at every depth, on its validation and test sets."""

from __future__ import annotations

from typing import Any

from edge_trgl.engine import evaluation
from edge_trgl.run.folder import Run


def run(run: Run) -> dict[str, Any]:
    """The scores, as `edge_trgl.engine.evaluation.evaluate` gives them, and the hash of the weights scored."""
    return evaluation.run(run)
