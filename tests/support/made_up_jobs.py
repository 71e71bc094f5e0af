"""Jobs of a dialogue that are made up by a test, in place of child processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_trgl.jobs.requests import JOBS, Job
from edge_trgl.pipeline import turns
from edge_trgl.pipeline.turns import Call, Ended, Listener
from edge_trgl.runtime.errors import EdgeTrglError, error_document
from edge_trgl.runtime.records import read_record, to_json

Calls = list[tuple[str, Any]]
"""The names of jobs, and their requests."""


def make_up(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[Job[Any, Any], Any], Any], peak_mb: float = 1.0
) -> Calls:
    """Have `answer(job, request)` give the result of every job, or raise its error; return the calls.

    `peak_mb`: of each job's process.
    """
    calls: Calls = []

    def run_job(call: Call, listener: Listener) -> Ended:
        job = JOBS[call.job]
        request = read_record(job.request, call.request)
        calls.append((job.name, request))
        try:
            return Ended(result=to_json(answer(job, request)), peak_mb=peak_mb)
        except EdgeTrglError as error:
            return Ended(error=error_document(error))

    monkeypatch.setattr(turns, "run_job", run_job)
    return calls
