"""The job `report`: write report.html."""

from edge_trgl.report.gather import write_report as run

__all__ = ["run"]
