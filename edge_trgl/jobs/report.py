"""The job `report`: write report.html."""

from __future__ import annotations

from edge_trgl.jobs.requests import ReportRequest
from edge_trgl.report.gather import write_report
from edge_trgl.run.folder import Run


def run(run: Run, request: ReportRequest) -> None:
    """Write the page; see `write_report`."""
    write_report(run, request.against)
