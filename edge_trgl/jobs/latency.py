"""The job `latency`: measure the exported files of a run in turn."""

from __future__ import annotations

from edge_trgl.deploy.latency import measure_latency
from edge_trgl.jobs.requests import LatencyRequest
from edge_trgl.run.export_record import Latencies
from edge_trgl.run.folder import Run


def run(run: Run, request: LatencyRequest) -> Latencies:
    """Measure files in the run's folder; see `measure_latency`."""
    paths = [run.folder / name for name in request.names]
    return measure_latency(paths, others_mb=request.others_mb, limits=request.limits)
