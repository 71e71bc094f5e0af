"""The job `train`: train what is left to train, then evaluate."""

from __future__ import annotations

from edge_trgl.engine import training
from edge_trgl.jobs.requests import TrainRequest
from edge_trgl.run.facts import Result
from edge_trgl.run.folder import Run


def run(run: Run, request: TrainRequest) -> Result:
    """Train within the requested limits; see `training.run`."""
    return training.run(run, request.limits)
