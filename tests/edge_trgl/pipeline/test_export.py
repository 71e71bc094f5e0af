"""The jobs of an export: a report that has something new to show is written once, last, whatever was refused."""

from __future__ import annotations

import pytest

from edge_trgl.pipeline.options import ExportOptions
from edge_trgl.runtime.errors import ExportRejectedError


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
def test_one_report_at_the_end(exporting, options, expected):
    exporting.export(ExportOptions(**options))
    assert [name for name, _ in exporting.calls] == expected


def test_the_report_shows_what_was_refused(exporting):
    exporting.results["int8"] = ExportRejectedError("it loses 3 points")
    with pytest.raises(ExportRejectedError, match="loses 3 points"):
        exporting.export(ExportOptions(forms=("int8",)))
    assert [name for name, _ in exporting.calls] == ["export", "check", "smaller", "report"]
