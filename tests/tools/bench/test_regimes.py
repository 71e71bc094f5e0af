"""The rows of the regimes: what they are held against, and that they are measured at all."""

from __future__ import annotations

import json

import pytest
from left_runs import left_runs


def figures(**sections):
    return {"rows": [], "overhead": [], "savings": [], "growth": [], "tree": [], **sections}


def row(name, tensors_mb):
    return {"net": "resnet110", "row": name, "tensors_mb": tensors_mb}


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"rows": [row("one-module", 44.0), row("end-to-end", 1000.0)]}, [True]),
        ({"rows": [row("one-module", 46.0), row("end-to-end", 1000.0)]}, [False]),
        ({"savings": [{"net": "resnet110", "row": "one", "median": 1.24}]}, [True]),
        ({"savings": [{"net": "resnet110", "row": "one", "median": 1.26}]}, [False]),
        ({"savings": [{"net": "quick", "row": "one", "median": 9.0}]}, []),
        ({"rows": [row("one-module", 61.0)]}, []),
        ({"growth": [{"modules": 10, "rss_mb": 300.0}, {"modules": 50, "rss_mb": 314.0}]}, [True]),
        ({"growth": [{"modules": 10, "rss_mb": 300.0}, {"modules": 50, "rss_mb": 316.0}]}, [False]),
        ({"tree": [{"budget_mb": 580, "summary_mb": 570, "outside_mb": 579}]}, [True]),
        ({"tree": [{"budget_mb": 580, "summary_mb": 570, "outside_mb": 581}]}, [False]),
        ({"tree": [{"error": "it ended"}]}, []),
        ({"overhead": [{"net": "resnet110", "row": "product, all in memory", "median": 1.04}]}, [True]),
        ({"overhead": [{"net": "resnet110", "row": "product, all in memory", "median": 1.06}]}, [False]),
        ({"overhead": [{"net": "quick", "row": "product, all in memory", "median": 9.0}]}, []),
        ({"overhead": [{"net": "resnet110", "row": "product, one in memory", "median": 9.0}]}, []),
    ],
)
def test_targets_are_judged_where_there_are_figures(tool, sections, expected):
    targets = tool("bench.regimes").judge(figures(**sections))
    assert [target["ok"] for target in targets] == expected


def test_a_row_that_failed_is_not_ok(tool):
    class Broken:
        threads = 1

        def row(self, net, name, net_name):
            return {"net": net_name, "row": name, "error": "it ended"}

    bench = tool("bench.regimes")
    document = bench.measure(Broken(), {"quick": tool("bench.nets").TINY}, ["parallel"], 2, quick=True)
    assert document["ok"] is False
    assert "it ended" in bench.table(document)


@pytest.mark.tool
def test_bench_regimes_quick(run_tool, tmp_path):
    done = run_tool("bench.regimes", "--quick", "--threads", "1", "--json", "-", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert document["ok"]
    names = [row["row"] for row in document["rows"]]
    assert names == ["end-to-end", "checkpointing", "parallel", "one-module", "multi-lap", "sequential"]
    for found in document["rows"]:
        assert 0 < found["tensors_mb"] < found["rss_mb"]
        assert found["images_per_s"] > 0
        assert 0 <= found["accuracy"] <= 1
    by_name = {found["row"]: found for found in document["rows"]}
    assert by_name["sequential"]["written_mb"] > by_name["end-to-end"]["written_mb"]
    (tree,) = document["tree"]
    assert tree["outside_mb"] == pytest.approx(tree["summary_mb"], rel=0.1)
    assert left_runs(tmp_path) == []


@pytest.mark.tool
def test_bench_regimes_takes_turns(run_tool, tmp_path):
    arguments = ("--quick", "--threads", "1", "--rows", "overhead", "savings", "growth", "--json", "-")
    done = run_tool("bench.regimes", *arguments, cwd=tmp_path)
    document = json.loads(done.stdout)
    assert len(document["overhead"]) == 3
    for item in (*document["overhead"], *document["savings"]):
        assert item["pairs"] == 2
        assert item["low"] <= item["median"] <= item["high"]
    assert [item["modules"] for item in document["growth"]] == [10, 20]
