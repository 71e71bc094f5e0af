"""Score a trained run again, at every depth, on its validation and test sets."""

from __future__ import annotations

from typing import Any

from edge_trgl.engine import evaluation, process_setup
from edge_trgl.engine.open_run import open_run
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import process_memory
from edge_trgl.runtime.memory.process_memory import Meter


def run(run: Run) -> dict[str, Any]:
    """The scores, as `edge_trgl.engine.evaluation.evaluate` gives them, and the hash of the weights scored."""
    opened = open_run(run)
    process_memory.hold_freed()
    modules, freed = opened.modules(), opened.freed(opened.state.meta("budget_mb"), process_setup.others_mb())
    scores = evaluation.evaluate(opened, modules, Meter(), freed, lambda visit: None)
    return {**scores, "weights_sha256": evaluation.weights_sha256(modules, len(opened))}
