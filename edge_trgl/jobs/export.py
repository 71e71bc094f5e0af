"""The job `export`: write the ONNX model of a trained run, not yet published."""

from __future__ import annotations

from edge_trgl.export.write_models import write_models
from edge_trgl.jobs.requests import ExportRequest
from edge_trgl.run.export_record import WrittenModels
from edge_trgl.run.folder import Run


def run(run: Run, request: ExportRequest) -> WrittenModels:
    """Write the model and, if asked for, its stages; see `write_models`."""
    return write_models(
        run,
        limits=request.limits,
        depth=request.depth,
        target=request.target,
        batch=request.batch,
        in_stages=request.in_stages,
        stages=request.stages,
    )
