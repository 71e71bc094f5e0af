"""The benchmark of a slow disk: what it makes of its figures."""

from __future__ import annotations

import pytest


def _round(with_s, without_s, faults=30):
    return {"with": {"seconds": with_s, "faults": faults}, "without": {"seconds": without_s, "faults": 3}}


@pytest.mark.parametrize(("with_s", "ok"), [(10.4, True), (10.6, False)])
def test_the_time_is_held_against_the_same_round_without(tool, with_s, ok):
    bench = tool("bench.slow_disk")
    found = bench.judge([_round(with_s, 10.0), _round(2 * with_s, 20.0)])
    assert found["median"] == pytest.approx(with_s / 10)
    assert found["ok"] == ok
    assert found["faults_per_minute"]["with"] == pytest.approx(60 * 60 / (3 * with_s))
    assert "with" in bench.lines({**found, "without": "diet"})[0]
