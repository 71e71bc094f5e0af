"""The job `probe`: measure the memory and time of the steps that a plan rests on."""

from __future__ import annotations

from edge_trgl.jobs.requests import ProbeRequest
from edge_trgl.planning.measure import measure
from edge_trgl.run.folder import Run


def run(run: Run, request: ProbeRequest) -> None:
    """Measure the requested steps; see `measure`."""
    measure(run, request.wanted, request.limits)
