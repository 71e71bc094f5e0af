"""Summarises a data set in a child process, without a run. No numpy here."""

from __future__ import annotations

import json
from pathlib import Path

from edge_trgl.config.sections import RunConfig
from edge_trgl.jobs.requests import SURVEY, SurveyRequest
from edge_trgl.run.data_summary import DataSummary
from edge_trgl.runtime.errors import OverBudgetError, StoppedError
from edge_trgl.runtime.processes.supervisor import run_child
from edge_trgl.runtime.records import document_of, read_record


def survey(config: RunConfig, folder: Path) -> DataSummary:
    """Summarise the data that a configuration names; their pixels are not read.

    Args:
        config: its sections `data` and `train` say what is read and how splits are drawn.
        folder: any; nothing is written to it.

    Raises:
        InputError: the data cannot be read.
        UsageError: an option does not apply to them.
    """
    request = SurveyRequest(data=config.data, seed=config.train.seed)
    arguments = ["-m", "edge_trgl.jobs", SURVEY.name, str(folder), json.dumps(document_of(request))]
    try:
        outcome = run_child(arguments, on_message=lambda message: None)
    except (OverBudgetError, StoppedError) as error:
        error.hint = ""  # the usual hint names a run to resume, and there is none
        raise
    return read_record(DataSummary, outcome.result)
