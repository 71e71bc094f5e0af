"""The speed benchmark: what it judges, and a tiny net for real."""

from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize(
    ("net", "medians", "verdicts"),
    [
        ("km16", (1.03, 1.02, 1.25), [True, True, True]),
        ("km16", (1.031, 1.021, 1.251), [False, False, False]),
        ("quick", (9.0, 9.0, 9.0), []),
    ],
)
def test_the_median_ratios_are_judged(tool, net, medians, verdicts):
    row = {"net": net, "head": "conv", "ratios": [{"median": median} for median in medians]}
    assert [target["ok"] for target in tool("bench.step_speed").judge(row)] == verdicts


@pytest.mark.tool
def test_bench_step_speed_quick(run_tool, tmp_path):
    done = run_tool("bench.step_speed", "--quick", "--json", "-", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"]) == (0, True), done.stdout
    (row,) = document["rows"]
    assert list(row["arms"]) == ["end-to-end", "greedy", "without", "product"]
    for found in row["arms"].values():
        assert found["images_per_s"] > 0
        assert len(found["cpu_seconds"]) == row["rounds"] == 2
    for ratio in row["ratios"]:
        assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
