"""Smaller files one after another, by jobs that are made up; the table of them all."""

from __future__ import annotations

import pytest
from made_up_exports import EXPORTED, FP16, INT8, latencies

from edge_trgl.cli.export import table
from edge_trgl.pipeline.job_runner import Done
from edge_trgl.pipeline.smaller_files import add_smaller
from edge_trgl.run.export_record import RefusedFile
from edge_trgl.run.exported_files import exported_files, read_export
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import ExportRejectedError, OverBudgetError
from edge_trgl.runtime.memory.limits import Limits

LIMITS = Limits(budget_mb=500.0)


@pytest.fixture
def jobs():
    """Jobs that give what is made up for them; `jobs.calls` are their names and requests."""

    class Jobs:
        def __init__(self):
            self.results = {"int8": INT8, "fp16": FP16, "latency": latencies(fp32=3.0, int8=1.0, fp16=3.1)}
            self.calls = []

        def do(self, job, request):
            self.calls.append((job.name, request))
            found = self.results[getattr(request, "form", job.name)]
            if isinstance(found, Exception):
                raise found
            return Done(result=found, peak_mb=400.0)

    return Jobs()


def test_one_after_another_then_measured(tmp_path, jobs):
    run = Run(tmp_path)
    record = add_smaller(run, EXPORTED, ("int8", "fp16"), LIMITS, jobs)
    assert [(name, getattr(request, "form", None)) for name, request in jobs.calls] == [
        ("smaller", "int8"),
        ("smaller", "fp16"),
        ("latency", None),
    ]
    assert jobs.calls[2][1].names == ("model.onnx", "model.int8.onnx", "model.fp16.onnx")
    assert {request.limits for _, request in jobs.calls} == {LIMITS}
    assert record == read_export(run)
    assert record.smaller == {"int8": INT8, "fp16": FP16}
    assert record.peak_mb > 400
    assert table(exported_files(run, record)).splitlines() == [
        "                        MiB  accuracy agreement   p50 ms",
        "model.onnx             4.00    90.00%               3.00",
        "model.int8.onnx        1.00    89.00%    98.00%     1.00  minmax; uint8 activations, int8 weights",
        "model.fp16.onnx        2.00    90.00%   100.00%     3.10",
    ]


def test_one_that_is_refused_does_not_keep_the_other_from_being_written(tmp_path, jobs):
    run = Run(tmp_path)
    jobs.results["int8"] = ExportRejectedError("it loses 3 points")
    jobs.results["latency"] = latencies(fp32=3.0, fp16=3.1)
    with pytest.raises(ExportRejectedError, match="it loses 3 points"):
        add_smaller(run, EXPORTED, ("int8", "fp16"), LIMITS, jobs)
    record = read_export(run)
    assert record.smaller == {"int8": RefusedFile(rejected="it loses 3 points"), "fp16": FP16}
    assert [request.names for name, request in jobs.calls if name == "latency"] == [
        ("model.onnx", "model.fp16.onnx")
    ]
    assert table(exported_files(run, record)).splitlines()[2].split(maxsplit=1) == [
        "model.int8.onnx",
        "it loses 3 points",
    ]


def test_if_all_are_refused_nothing_is_measured(tmp_path, jobs):
    run = Run(tmp_path)
    jobs.results["fp16"] = ExportRejectedError("it differs")
    with pytest.raises(ExportRejectedError):
        add_smaller(run, EXPORTED, ("fp16",), LIMITS, jobs)
    record = read_export(run)
    assert [name for name, _ in jobs.calls] == ["smaller"]
    assert [row.latency_ms for row in exported_files(run, record)] == [None, None]


def test_without_room_to_measure_there_is_no_latency(tmp_path, jobs):
    run = Run(tmp_path)
    jobs.results["latency"] = OverBudgetError("an allocation was refused")
    record = add_smaller(run, EXPORTED, ("int8",), LIMITS, jobs)
    assert record.latency is None
    assert [row.latency_ms for row in exported_files(run, record)] == [None, None]


def test_an_export_without_smaller_files_has_no_table(tmp_path):
    assert exported_files(Run(tmp_path), EXPORTED) == ()
