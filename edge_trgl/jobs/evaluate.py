"""The job `evaluate`: score a trained run again, at every depth, on its validation and test sets."""

from __future__ import annotations

from edge_trgl.engine import evaluation
from edge_trgl.jobs.requests import EvaluateResult, Nothing
from edge_trgl.run.folder import Run


def run(run: Run, request: Nothing) -> EvaluateResult:
    """Score the run; see `evaluation.run`."""
    scores, weights_sha256 = evaluation.run(run)
    return EvaluateResult(scores=scores, weights_sha256=weights_sha256)
