"""The table of exported files, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from edge_trgl.run.exported_files import Row
from edge_trgl.runtime.units import MIB


def table(found: Sequence[Row]) -> str:
    """The rows for a terminal."""
    lines = [f"{'':18s} {'MiB':>8s} {'accuracy':>9s} {'agreement':>9s} {'p50 ms':>8s}"]
    for row in found:
        size = "" if row.num_bytes is None else f"{row.num_bytes / MIB:.2f}"
        shares = ["" if share is None else f"{share:.2%}" for share in (row.accuracy, row.top1_agreement)]
        latency = "" if row.latency_ms is None else f"{row.latency_ms:.2f}"
        lines.append(
            f"{row.name:18s} {size:>8s} {shares[0]:>9s} {shares[1]:>9s} {latency:>8s}  {row.note}".rstrip()
        )
    return "\n".join(lines)
