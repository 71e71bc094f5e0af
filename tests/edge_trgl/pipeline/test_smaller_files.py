"""Smaller files one after another, by jobs that are made up; the table of them all."""

from __future__ import annotations

import pytest
from made_up_exports import EXPORTED, FP16, INT8, latencies

from edge_trgl.cli.export import table
from edge_trgl.pipeline.options import ExportOptions
from edge_trgl.run.export_record import RefusedFile
from edge_trgl.run.exported_files import exported_files, read_export
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import ExportRejectedError, OverBudgetError
from edge_trgl.runtime.memory.limits import Limits


def test_one_after_another_then_measured(exporting):
    run = exporting.run
    record = exporting.export(ExportOptions(forms=("int8", "fp16")))
    assert [(name, getattr(request, "form", None)) for name, request in exporting.calls] == [
        ("export", None),
        ("check", None),
        ("smaller", "int8"),
        ("smaller", "fp16"),
        ("latency", None),
        ("report", None),
    ]
    assert exporting.calls[4][1].names == ("model.onnx", "model.int8.onnx", "model.fp16.onnx")
    assert {request.limits for _, request in exporting.calls[:-1]} == {Limits(budget_mb=500.0)}
    assert record == read_export(run)
    assert record.smaller == {"int8": INT8, "fp16": FP16}
    assert record.peak_mb > 400
    assert table(exported_files(run, record)).splitlines() == [
        "                        MiB  accuracy agreement   p50 ms",
        "model.onnx             4.00    90.00%               3.00",
        "model.int8.onnx        1.00    89.00%    98.00%     1.00  minmax; uint8 activations, int8 weights",
        "model.fp16.onnx        2.00    90.00%   100.00%     3.10",
    ]


def test_one_that_is_refused_does_not_keep_the_other_from_being_written(exporting):
    run = exporting.run
    exporting.results["int8"] = ExportRejectedError("it loses 3 points")
    exporting.results["latency"] = latencies(fp32=3.0, fp16=3.1)
    with pytest.raises(ExportRejectedError, match="it loses 3 points"):
        exporting.export(ExportOptions(forms=("int8", "fp16")))
    record = read_export(run)
    assert record.smaller == {"int8": RefusedFile(rejected="it loses 3 points"), "fp16": FP16}
    assert [request.names for name, request in exporting.calls if name == "latency"] == [
        ("model.onnx", "model.fp16.onnx")
    ]
    assert table(exported_files(run, record)).splitlines()[2].split(maxsplit=1) == [
        "model.int8.onnx",
        "it loses 3 points",
    ]


def test_if_all_are_refused_nothing_is_measured(exporting):
    run = exporting.run
    exporting.results["fp16"] = ExportRejectedError("it differs")
    with pytest.raises(ExportRejectedError):
        exporting.export(ExportOptions(forms=("fp16",)))
    record = read_export(run)
    assert [name for name, _ in exporting.calls] == ["export", "check", "smaller", "report"]
    assert [row.latency_ms for row in exported_files(run, record)] == [None, None]


def test_without_room_to_measure_there_is_no_latency(exporting):
    run = exporting.run
    exporting.results["latency"] = OverBudgetError("an allocation was refused")
    record = exporting.export(ExportOptions(forms=("int8",)))
    assert record.latency is None
    assert [row.latency_ms for row in exported_files(run, record)] == [None, None]


def test_an_export_without_smaller_files_has_no_table(tmp_path):
    assert exported_files(Run(tmp_path), EXPORTED) == ()
