"""The smaller files beside model.onnx: made in turn, measured beside it, and a table of them all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_trgl.export_options import Form
from edge_trgl.run import Run
from edge_trgl.runtime import files, memory
from edge_trgl.runtime.errors import ExportRejectedError, OverBudgetError
from edge_trgl.runtime.supervisor import Outcome

Job = Callable[..., Outcome]
"""Runs a job by its name, with its options; raises what it ended with."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One exported file; what is not known of it is None.

    `accuracy` is on the validation images that the smaller files are judged by, at the deepest exit, and
    `top1_agreement` with the float32 file over them, as fractions; `latency_ms` is the median of a run; `note`
    says how it was quantised, or why it was refused.
    """

    name: str
    num_bytes: int | None
    accuracy: float | None
    top1_agreement: float | None
    latency_ms: float | None
    note: str


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
    limits = {"others_mb": memory.usage().peak, "budget_mb": budget_mb}
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


def rows(run: Run, document: Mapping[str, Any]) -> list[Row]:
    """One for each file of an export; none where there is no smaller one."""
    smaller = document.get("smaller", {})
    if not smaller:
        return []
    latencies = (document["latency"] or {"p50_ms": {}})["p50_ms"]
    judged = next((one for one in smaller.values() if "rejected" not in one), None)
    name = run.onnx_file.name
    first = Row(
        name=name,
        num_bytes=document["num_bytes"],
        accuracy=judged and judged["accuracy_fp32"],
        top1_agreement=None,
        latency_ms=latencies.get(name),
        note="",
    )
    return [first, *(_row(run.smaller_file(form).name, one, latencies) for form, one in smaller.items())]


def _row(name: str, one: Mapping[str, Any], latencies: Mapping[str, float]) -> Row:
    return Row(
        name=name,
        num_bytes=one.get("num_bytes"),
        accuracy=one.get("accuracy"),
        top1_agreement=one.get("top1_agreement"),
        latency_ms=latencies.get(name),
        note=one.get("rejected") or (f"{one['method']}; {one['form']}" if "method" in one else ""),
    )


def table(found: Sequence[Row]) -> str:
    """The rows for a terminal."""
    lines = [f"{'':18s} {'MiB':>8s} {'accuracy':>9s} {'agreement':>9s} {'p50 ms':>8s}"]
    for row in found:
        size = "" if row.num_bytes is None else f"{row.num_bytes / memory.MIB:.2f}"
        shares = ["" if share is None else f"{share:.2%}" for share in (row.accuracy, row.top1_agreement)]
        latency = "" if row.latency_ms is None else f"{row.latency_ms:.2f}"
        lines.append(
            f"{row.name:18s} {size:>8s} {shares[0]:>9s} {shares[1]:>9s} {latency:>8s}  {row.note}".rstrip()
        )
    return "\n".join(lines)
