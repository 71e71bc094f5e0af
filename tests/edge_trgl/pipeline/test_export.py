"""The jobs of an export: a report that has something new to show is written once, last, whatever was refused."""

from __future__ import annotations

import json

import pytest

from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.runtime.errors import ExportRejectedError
from edge_trgl.runtime.processes.supervisor import Outcome


@pytest.fixture
def jobs(plan_run, monkeypatch):
    """A finished run's pipeline that only notes its jobs: (pipeline, their names)."""
    run = plan_run("run")
    state = run.state()
    state.set_meta("result", {"scores": {}})
    state.set_meta("budget_mb", 500.0)
    state.close()
    run.summary_file.write_text("{}")
    names: list[str] = []
    document = {"peak_mb": 300.0, "early_exit": None}

    def job(self, state, name, **options):
        names.append(name)
        if name == "check":
            run.export_file.write_text(json.dumps(document))
        if options.get("form") == "int8":
            raise ExportRejectedError("it loses 3 points")
        return Outcome(result=document, peak_mb=300.0, seconds=1.0)

    monkeypatch.setattr(Pipeline, "_job", job)
    return Pipeline(run, lambda message: None), names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["export", "check"]),
        ({"exits": "0.9"}, ["export", "calibrate", "check", "report"]),
        ({"forms": ("fp16",)}, ["export", "check", "smaller", "latency", "report"]),
        ({"exits": "0.9", "forms": ("fp16",)}, ["export", "calibrate", "check", "smaller", "latency", "report"]),
    ],
)
def test_one_report_at_the_end(jobs, options, expected):
    pipeline, names = jobs
    pipeline.export(**options)
    assert names == expected


def test_the_report_shows_what_was_refused(jobs):
    pipeline, names = jobs
    with pytest.raises(ExportRejectedError, match="loses 3 points"):
        pipeline.export(forms=("int8",))
    assert names == ["export", "check", "smaller", "report"]
