"""The smaller files beside model.onnx: made in turn, and measured beside it."""

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
    """Write the smaller files of the model that was exported; returns what export.json says then.

    Args:
        run: exported.
        exported: what export.json says so far.
        forms: of the files.
        limits: for each job and this process.
        jobs: runs them.

    Raises:
        ExportRejectedError: one is not as good as it must be; the others are written all the same.
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
        # An optimised session holds the weights several times; the files are good without their latency.
        return None
