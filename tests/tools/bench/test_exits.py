"""The cascade and the one file of nested nodes are timed on the same answers."""

from __future__ import annotations

import json

import pytest
from plans import PLENTY

from edge_trgl.export.check_models import check_models
from edge_trgl.export.early_exit.search import choose_thresholds
from edge_trgl.export.write_models import write_models


@pytest.fixture
def in_stages(trained_copy):
    run = trained_copy("run").run
    limits = {"others_mb": 0.0, "limits": PLENTY}
    written = write_models(run, depth="last", target=None, batch="dynamic", limits=PLENTY, in_stages=True)
    calibrated = choose_thresholds(run, written=written, leaving="0.5", **limits)
    check_models(run, written=written, export_mb=0.0, chosen=calibrated, **limits)
    return run


@pytest.mark.slow
def test_bench_exits_quick(run_tool, in_stages, tmp_path):
    done = run_tool("bench.exits", str(in_stages.folder), "--quick", "--json", "-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["threshold"] for row in rows] == [1.0, 0.6, 0.0] * 2
    assert [row["optimize"] for row in rows] == [False] * 3 + [True] * 3
    shares = [row["compute_share"] for row in rows]
    assert shares[0] == shares[1] == 1.0 and shares[2] < 0.5  # nothing is sure after so short a training
    for row in rows:
        low, high = row["cascade_to_nested"][1:]
        assert 0 < low <= high
        assert min(row["cascade_ms"], row["nested_ms"], row["model_ms"]) > 0
