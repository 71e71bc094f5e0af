"""Kills at random moments."""

from __future__ import annotations

import json

import pytest
from left_runs import left_runs

KILLS = ((2, 0, 3, True), (1, 1, 3, False), (2, 0, 2, False))


@pytest.mark.parametrize(("equal", "different", "kills", "ok"), KILLS)
def test_kills_are_ok_only_if_all_were_dealt_and_all_runs_are_equal(tool, equal, different, kills, ok):
    kill = tool("prove.random_kills")
    tally = kill.Tally(
        regime="parallel", seconds=1.0, sha256="", worker=1, tree=kills - 1, equal=equal, different=different
    )
    document = kill.judge([tally], 3, 0)
    assert document["ok"] is ok
    assert ("NOT OK" in kill.table(document)) is not ok


@pytest.mark.tool
def test_kill_quick(run_tool, tmp_path):
    done = run_tool("prove.random_kills", "--quick", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert document["ok"]
    assert sum(item["kills"] for item in document["regimes"]) == 3
    assert left_runs(tmp_path) == []
