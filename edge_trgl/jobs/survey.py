"""The job `survey`: what is in a data set, without decoding it. No torch."""

from __future__ import annotations

from edge_trgl.data.summary import survey
from edge_trgl.jobs.requests import SurveyRequest
from edge_trgl.run.data_summary import DataSummary
from edge_trgl.run.folder import Run


def run(run: Run, request: SurveyRequest) -> DataSummary:
    """Summarise the data; `run` is not used."""
    return survey(request.data, seed=request.seed)
