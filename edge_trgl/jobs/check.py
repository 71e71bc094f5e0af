"""The job `check`: compare the model that the job `export` wrote with the network, and publish or refuse it."""

from __future__ import annotations

from edge_trgl.export.check_models import check_models
from edge_trgl.jobs.requests import CheckRequest
from edge_trgl.run.folder import Run
from edge_trgl.runtime.records import Document


def run(run: Run, request: CheckRequest) -> Document:
    """Check the model and its stages; see `check_models`."""
    return check_models(
        run,
        written=request.written,
        calibrated=request.calibrated,
        export_mb=request.export_mb,
        others_mb=request.others_mb,
        limits=request.limits,
    )
