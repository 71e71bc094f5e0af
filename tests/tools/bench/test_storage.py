"""The storage benchmark: that it measures at all, and what it holds its figures against."""

from __future__ import annotations

import json

import pytest
from left_runs import left_runs


def _ratio(median):
    return {"median": median, "low": median, "high": median, "seconds": []}


def _spent(memory, ahead, cache):
    return {"in memory": memory, "read ahead": ahead, "by way of the page cache": cache}


@pytest.mark.tool
def test_a_quick_try_of_every_section(run_tool, tmp_path):
    file = tmp_path / "storage.json"
    arguments = ("--quick", "--threads", "1", "--rounds", "2", "--json", str(file))
    done = run_tool("bench.storage", *arguments, cwd=tmp_path)
    document = json.loads(file.read_text())
    assert set(document["figures"]) == {"cached", "reads", "parallel", "cache", "order", "prefix"}, done.stderr
    assert document["ok"] == all(target["ok"] for target in document["targets"])
    assert 0 < document["figures"]["cache"]["0.1 GB"]["cached_mb"] < 64
    assert len(document["figures"]["order"]["windowed"]) == 2
    assert {"1 views", "4 views", "no cache"} <= set(document["figures"]["prefix"])
    assert left_runs(tmp_path) == []


@pytest.mark.parametrize(
    ("section", "found", "expected"),
    [
        ("cached", {"disk / RAM": _ratio(1.03)}, [True]),
        ("cached", {"disk / RAM": _ratio(1.04)}, [False]),
        ("cached", {"disk / RAM": _ratio(1.04), "disk / RAM, a core to spare": _ratio(1.03)}, [False, True]),
        ("cached", {"disk / RAM": _ratio(1.0), "slow disk / its limit": _ratio(1.09)}, [True, True]),
        ("cached", {"disk / RAM": _ratio(1.0), "slow disk / its limit": _ratio(1.11)}, [True, False]),
        ("reads", {"ms_per_mb": _spent(0.2, 0.5, 0.8)}, [True]),
        ("reads", {"ms_per_mb": _spent(0.2, 0.9, 0.8)}, [False]),
        ("parallel", {"net": _ratio(1.14)}, [True]),
        ("parallel", {"net": _ratio(1.16)}, [False]),
        ("cache", {"2 GB": {"laps": 1, "cached_mb": 60.0, "rss_mb": [200.0]}}, [True]),
        ("cache", {"2 GB": {"laps": 1, "cached_mb": 62.0, "rss_mb": [200.0]}}, [False]),
        ("cache", {"0.2 GB": {"laps": 4, "cached_mb": 9.0, "rss_mb": [1.0, 9.0, 20.0, 20.5]}}, [True, True]),
        ("cache", {"0.2 GB": {"laps": 4, "cached_mb": 9.0, "rss_mb": [1.0, 9.0, 20.0, 21.5]}}, [True, False]),
        ("order", {"windowed": [0.8, 0.9, 0.7], "full": [0.9, 0.8, 0.7]}, [True]),
        ("order", {"windowed": [0.70, 0.71, 0.72], "full": [0.80, 0.81, 0.821]}, [False]),
        ("prefix", {}, []),
    ],
)
def test_targets(tool, section, found, expected):
    bench = tool("bench.storage.__main__")
    assert [target["ok"] for target in bench.SECTIONS[section].judge(found)] == expected
