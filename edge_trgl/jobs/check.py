"""The job `check`: compare the model that the job `export` wrote with the network, and publish or refuse it."""

from __future__ import annotations

from edge_trgl.export.check_models import check_models
from edge_trgl.jobs.requests import CheckRequest
from edge_trgl.run.export_record import ExportRecord
from edge_trgl.run.folder import Run


def run(run: Run, request: CheckRequest) -> ExportRecord:
    """Check the model and its stages; see `check_models`."""
    return check_models(
        run,
        written=request.written,
        chosen=request.chosen,
        export_mb=request.export_mb,
        others_mb=request.others_mb,
        limits=request.limits,
    )
