"""Score a trained run again, at every depth, on its validation and test sets."""

from __future__ import annotations

from typing import Any

from edge_trgl import evaluate, process
from edge_trgl.opening import open_run
from edge_trgl.run import Run
from edge_trgl.runtime import memory
from edge_trgl.runtime.memory import Meter


def run(run: Run) -> dict[str, Any]:
    """The scores, as `edge_trgl.evaluate.evaluate` gives them, and the hash of the weights scored."""
    opened = open_run(run)
    memory.hold_freed()
    modules, freed = opened.modules(), opened.freed(opened.state.meta("budget_mb"), process.others_mb())
    scores = evaluate.evaluate(opened, modules, Meter(), freed, lambda visit: None)
    return {**scores, "weights_sha256": evaluate.weights_sha256(modules, len(opened))}
