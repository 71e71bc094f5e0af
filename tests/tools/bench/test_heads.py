"""Heads and numbers of modules: every row is measured once, and a cut goes on."""

from __future__ import annotations

import json

import pytest


@pytest.mark.tool
def test_a_quick_try_measures_every_row_once(run_tool, tmp_path):
    arguments = ("bench.heads", "--quick", "--json", str(tmp_path / "heads.json"))
    first = run_tool(*arguments, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    rows = json.loads((tmp_path / "heads.json").read_text())["rows"]
    assert [(row["head"], row["modules"], row["runs"]) for row in rows] == [("conv", 10, 1), ("lite", 2, 1)]
    for row in rows:
        assert 0 <= row["accuracy"] <= 1 and row["images_per_cpu_s"] > 0
        assert row["peak_mb"] > 50 and row["smallest_mb"] > 50
    assert rows[0]["time"] == [1, 1, 1]
    again = run_tool(*arguments, cwd=tmp_path)
    assert (again.returncode, again.stderr, again.stdout) == (0, "", first.stdout)
    assert list((tmp_path / "runs").glob(".heads-*")) == []


def test_rows_without_their_runs_are_left_out(tool):
    heads, book = tool("bench.heads"), tool("common.book").Book(None, {})
    ways = heads.WAYS[:3]
    for way in ways:
        book.put("plans", way.name, {"smallest_mb": 200.0})
    run = {"chosen": 0.5, "last": 0.4, "chosen_depth": 2, "peak_mb": 210.0}
    for way, seed, chosen in ((ways[0], 0, 0.5), (ways[1], 0, 0.6), (ways[1], 1, 0.8)):
        book.put("runs", f"{way.name}, {seed}", {"row": way.name, "seed": seed, **run, "chosen": chosen})
    assert list(heads._summarised(book, ways)) == []
    turns = {way.name: [seconds, seconds] for way, seconds in zip(ways, (4.0, 1.0, 2.0), strict=True)}
    book.put("speed", ",".join(way.name for way in ways), {"images": 100, "turns": turns})
    base, other = heads._summarised(book, ways)
    assert (base["time"], base["images_per_cpu_s"], base["cpu_ms"]) == ([1, 1, 1], 25, 40)
    assert other["time"] == [0.25, 0.25, 0.25]
    assert (other["accuracy"], other["lowest"], other["highest"], other["runs"]) == (
        pytest.approx(0.7),
        0.6,
        0.8,
        2,
    )
