"""The job `calibrate`: choose the thresholds of early exits from the outputs of the stages."""

from __future__ import annotations

from edge_trgl.export.early_exit.search import choose_thresholds
from edge_trgl.jobs.requests import CalibrateRequest
from edge_trgl.run.export_record import ChosenThresholds
from edge_trgl.run.folder import Run


def run(run: Run, request: CalibrateRequest) -> ChosenThresholds:
    """Choose the thresholds; see `choose_thresholds`."""
    return choose_thresholds(
        run,
        written=request.written,
        leaving=request.leaving,
        others_mb=request.others_mb,
        limits=request.limits,
    )
