"""The jobs of an export: a report that has something new to show is written once, last, whatever was refused."""

from __future__ import annotations

import pytest
from made_up_exports import EXPORTED, FP16, latencies

from edge_trgl.jobs.requests import CHECK
from edge_trgl.pipeline.exporting import ExportOptions
from edge_trgl.pipeline.job_runner import Done, JobRunner
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.run.exported_files import write_export
from edge_trgl.run.facts import Result, Scores, Work
from edge_trgl.runtime.errors import ExportRejectedError
from edge_trgl.runtime.memory.limits import Limits


@pytest.fixture
def jobs(plan_run, monkeypatch):
    """A finished run's pipeline that only notes its jobs: (pipeline, their names)."""
    run = plan_run("run")
    facts = run.facts()
    scores = Scores(
        first_depth=1,
        per_depth=(0.5,),
        chosen_depth=1,
        chosen=0.5,
        last=0.5,
        test_per_depth=(0.5,),
        chosen_on="validation",
    )
    facts.result = Result(scores=scores, weights_sha256="", work=Work(), peak_mb=1.0, method="VmHWM")
    facts.limits = Limits(budget_mb=500.0)
    facts.close()
    run.summary_file.write_text("{}")
    names: list[str] = []
    results = {"check": EXPORTED, "smaller": FP16, "latency": latencies()}

    def do(self, job, request):
        names.append(job.name)
        if job is CHECK:
            write_export(run, EXPORTED)
        if getattr(request, "form", None) == "int8":
            raise ExportRejectedError("it loses 3 points")
        return Done(result=results.get(job.name, EXPORTED), peak_mb=300.0)

    monkeypatch.setattr(JobRunner, "do", do)
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
    pipeline.export(ExportOptions(**options))
    assert names == expected


def test_the_report_shows_what_was_refused(jobs):
    pipeline, names = jobs
    with pytest.raises(ExportRejectedError, match="loses 3 points"):
        pipeline.export(ExportOptions(forms=("int8",)))
    assert names == ["export", "check", "smaller", "report"]
