"""The job `smaller`: write model.onnx as int8 or fp16, and publish it if it is accurate enough."""

from __future__ import annotations

from edge_trgl.export.smaller_models import write_smaller
from edge_trgl.jobs.requests import SmallerRequest
from edge_trgl.run.export_record import SmallerFile
from edge_trgl.run.folder import Run


def run(run: Run, request: SmallerRequest) -> SmallerFile:
    """Write one smaller file; see `write_smaller`."""
    return write_smaller(run, form=request.form, others_mb=request.others_mb, limits=request.limits)
