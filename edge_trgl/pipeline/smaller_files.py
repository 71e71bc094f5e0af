"""Writes the smaller files beside model.onnx in turn, and measures their latency next to its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edge_trgl.config.export_request import Form
from edge_trgl.jobs.requests import LATENCY, SMALLER, LatencyRequest, SmallerRequest
from edge_trgl.pipeline.job_runner import JobRunner
from edge_trgl.run.export_record import ExportRecord, Latencies, RefusedFile, SmallerFile
from edge_trgl.run.exported_files import write_export
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import ExportRejectedError, OverBudgetError
from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.memory.limits import Limits


def add_smaller(
    run: Run, exported: ExportRecord, forms: Sequence[Form], limits: Limits, jobs: JobRunner
) -> ExportRecord:
    """Write the smaller files of an exported model; return the new content of export.json.

    Args:
        run: the exported run.
        exported: the content of export.json so far.
        forms: the forms to write.
        limits: the budget of each job and this process together.
        jobs: runs the jobs.

    Raises:
        ExportRejectedError: a file is not accurate enough; the others are written nevertheless.
    """
    others_mb = high_water.peak_mb()
    smaller: dict[Form, SmallerFile | RefusedFile] = {}
    peaks_mb = [exported.peak_mb]
    refused: ExportRejectedError | None = None
    for form in forms:
        try:
            done = jobs.do(SMALLER, SmallerRequest(limits=limits, others_mb=others_mb, form=form))
            smaller[form] = done.result
            peaks_mb.append(round(done.peak_mb + others_mb, 1))
        except ExportRejectedError as error:
            smaller[form] = RefusedFile(rejected=error.message)
            refused = refused or error
    made = [run.smaller_file(form).name for form in forms if not isinstance(smaller[form], RefusedFile)]
    names = (run.onnx_file.name, *made)
    request = LatencyRequest(limits=limits, others_mb=others_mb, names=names)
    latency = _latency(request, jobs) if made else None
    extended = replace(exported, peak_mb=max(peaks_mb), smaller=smaller, latency=latency)
    write_export(run, extended)
    if refused is not None:
        raise refused
    return extended


def _latency(request: LatencyRequest, jobs: JobRunner) -> Latencies | None:
    try:
        return jobs.do(LATENCY, request).result
    except OverBudgetError:
        # An optimised session holds the weights several times; the files are valid without a latency.
        return None
