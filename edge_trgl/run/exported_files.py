"""What export.json says of model.onnx and of the smaller files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_trgl.run.folder import Run


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
