"""The transport benchmark: what it judges, and a tiny net for real."""

from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize(
    ("net", "memory", "high", "verdicts"),
    [
        ("resnet110", 1.001, 1.02, [True, True]),
        ("resnet110", 1.0011, 1.021, [False, False]),
        ("km64", 1.0, 1.021, [True, False]),
        ("quick", 1.0, 9.0, [True]),
    ],
)
def test_the_worst_module_and_the_upper_end_are_judged(tool, net, memory, high, verdicts):
    row = {
        "net": net,
        "recompute": "none",
        "memory": {"with": memory, "kept": 9.0},
        "time": {"with": {"median": 1.0, "low": 0.9, "high": high}},
    }
    assert [target["ok"] for target in tool("bench.transport").judge(row)] == verdicts


@pytest.mark.slow
def test_a_tiny_net(run_tool, tmp_path):
    done = run_tool("bench.transport", "--quick", "--json", "-", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"]) == (0, True), done.stdout
    assert [row["recompute"] for row in document["rows"]] == ["none", "norms", "blocks"]
    for row in document["rows"]:
        assert row["peak_mb"]["with"] <= row["peak_mb"]["kept"]
        for ratios in row["time"].values():
            assert 0 < ratios["low"] <= ratios["median"] <= ratios["high"]
    # What a kept residue takes is seen where nothing is computed again.
    assert document["rows"][0]["memory"]["kept"] > 1.05
