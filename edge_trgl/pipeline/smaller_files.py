"""The smaller files beside model.onnx: made in turn, and measured beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edge_trgl.config.export_request import Form
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import ExportRejectedError, OverBudgetError
from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.processes.supervisor import Outcome
from edge_trgl.runtime.storage import files

Job = Callable[..., Outcome]
"""Runs a job by its name, with its options; raises what it ended with."""


def add_smaller(
    run: Run, document: Mapping[str, Any], forms: Sequence[Form], budget_mb: float, job: Job
) -> dict[str, Any]:
    """Write the smaller files of the model that was exported; what stands in export.json then.

    Args:
        run: exported.
        document: of export.json.
        forms: of the files.
        budget_mb: for each job and this process.
        job: runs the jobs.

    Raises:
        ExportRejectedError: one is not as good as it must be; the others are written all the same.
    """
    limits = {"others_mb": high_water.peak_mb(), "budget_mb": budget_mb}
    smaller: dict[str, Any] = {}
    peaks_mb = [document["peak_mb"]]
    refused: ExportRejectedError | None = None
    for form in forms:
        try:
            outcome = job("smaller", form=form, **limits)
            smaller[form] = outcome.result
            peaks_mb.append(round(outcome.peak_mb + limits["others_mb"], 1))
        except ExportRejectedError as error:
            smaller[form] = {"rejected": error.message}
            refused = refused or error
    made = [run.smaller_file(form).name for form in forms if "rejected" not in smaller[form]]
    extended = {
        **document,
        "peak_mb": max(peaks_mb),
        "smaller": smaller,
        "latency": _latency([run.onnx_file.name, *made], limits, job) if made else None,
    }
    files.write_durable(run.export_file, [json.dumps(extended, indent=2).encode() + b"\n"])
    if refused is not None:
        raise refused
    return extended


def _latency(names: Sequence[str], limits: Mapping[str, float], job: Job) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = job("latency", names=names, **limits).result
    except OverBudgetError:
        # An optimised session holds the weights several times; the files are good without their latency.
        return None
    return found
