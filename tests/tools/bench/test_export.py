"""What an export takes."""

from __future__ import annotations

import json

import pytest
from left_runs import left_runs


@pytest.mark.tool
def test_bench_export_quick(run_tool, tmp_path):
    done = run_tool("bench.export", "--quick", "--json", "-", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"]) == (0, True)
    for row in document["rows"]:
        assert row["heaviest_mb"] < 1
        assert 0 < row["check_mb"] < row["export_mb"] <= row["limit_mb"] < 325
        assert row["tree_mb"] == pytest.approx(row["export_mb"], rel=0.1)
        assert row["files"] == ["model.onnx"]
    assert left_runs(tmp_path) == []


def test_a_missed_limit_is_shown(tool):
    names = ("weights_mb", "heaviest_mb", "budget_mb", "export_mb", "check_mb", "tree_mb", "limit_mb")
    row = {**dict.fromkeys(names, 1.0), "net": "n", "files": ["f"], "max_abs_diff": 0.0, "within_limit": True}
    table = tool("bench.export")._table
    assert "MISSED" not in table([{**row, "within_budget": True}])
    assert "MISSED" in table([{**row, "within_budget": False}])
