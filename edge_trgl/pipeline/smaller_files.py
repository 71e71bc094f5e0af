"""The smaller files beside model.onnx: made in turn, and measured beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edge_trgl.config.export_request import Form
from edge_trgl.jobs.requests import LATENCY, SMALLER, LatencyRequest, SmallerRequest
from edge_trgl.pipeline.job_runner import JobRunner
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import ExportRejectedError, OverBudgetError
from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.records import Document
from edge_trgl.runtime.storage import files


def add_smaller(
    run: Run, document: Mapping[str, Any], forms: Sequence[Form], limits: Limits, jobs: JobRunner
) -> Document:
    """Write the smaller files of the model that was exported; returns what stands in export.json then.

    Args:
        run: exported.
        document: of export.json.
        forms: of the files.
        limits: for each job and this process.
        jobs: runs them.

    Raises:
        ExportRejectedError: one is not as good as it must be; the others are written all the same.
    """
    others_mb = high_water.peak_mb()
    smaller: Document = {}
    peaks_mb = [document["peak_mb"]]
    refused: ExportRejectedError | None = None
    for form in forms:
        try:
            done = jobs.do(SMALLER, SmallerRequest(limits=limits, others_mb=others_mb, form=form))
            smaller[form] = done.result
            peaks_mb.append(round(done.peak_mb + others_mb, 1))
        except ExportRejectedError as error:
            smaller[form] = {"rejected": error.message}
            refused = refused or error
    made = [run.smaller_file(form).name for form in forms if "rejected" not in smaller[form]]
    names = (run.onnx_file.name, *made)
    extended = {
        **document,
        "peak_mb": max(peaks_mb),
        "smaller": smaller,
        "latency": _latency(LatencyRequest(limits=limits, others_mb=others_mb, names=names), jobs)
        if made
        else None,
    }
    files.write_durable(run.export_file, [json.dumps(extended, indent=2).encode() + b"\n"])
    if refused is not None:
        raise refused
    return extended


def _latency(request: LatencyRequest, jobs: JobRunner) -> Document | None:
    try:
        return jobs.do(LATENCY, request).result
    except OverBudgetError:
        # An optimised session holds the weights several times; the files are good without their latency.
        return None
