"""A trained run whose export is made up."""

from __future__ import annotations

from typing import Any

import pytest
from made_up_exports import CHOSEN, EXPORTED, FP16, INT8, WRITTEN, latencies
from made_up_jobs import Calls, make_up

from edge_trgl.config.sources import resolve
from edge_trgl.pipeline.options import ExportOptions
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.run.export_record import ExportRecord
from edge_trgl.run.exported_files import write_export
from edge_trgl.run.facts import Result, Scores, Work
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.records import read_record


class Exporting:
    """The export of a run: what its jobs give, by their names or that of the form, and how they were called."""

    def __init__(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run = run
        self.results: dict[str, Any] = {
            "export": WRITTEN,
            "calibrate": CHOSEN,
            "check": EXPORTED,
            "int8": INT8,
            "fp16": FP16,
            "latency": latencies(fp32=3.0, int8=1.0, fp16=3.1),
            "report": None,
        }
        self.calls: Calls = make_up(monkeypatch, self._answer, peak_mb=400.0)

    def export(self, options: ExportOptions) -> ExportRecord:
        """What `edge-trgl export` does."""
        return read_record(ExportRecord, Pipeline(self.run.folder, lambda message: None).export(options))

    def _answer(self, job: Any, request: Any) -> Any:
        if job.name == "check":
            write_export(self.run, EXPORTED)
        result = self.results[getattr(request, "form", job.name)]
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
def exporting(tmp_path, monkeypatch):
    """The export of a trained run of 500 MiB."""
    run = Run.create(tmp_path / "run", resolve())
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
    return Exporting(run, monkeypatch)
