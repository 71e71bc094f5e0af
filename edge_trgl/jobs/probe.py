"""The job `probe`: measure the works that a plan rests on."""

from __future__ import annotations

from edge_trgl.jobs.requests import ProbeRequest
from edge_trgl.planning.measure import measure
from edge_trgl.run.folder import Run


def run(run: Run, request: ProbeRequest) -> None:
    """Measure them; see `measure`."""
    measure(run, request.wanted, request.limits)
