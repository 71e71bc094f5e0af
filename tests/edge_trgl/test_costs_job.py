"""What is counted at all: a net is built whole only where training it whole may fit."""

from __future__ import annotations

import pytest

from edge_trgl.jobs import costs
from edge_trgl.runtime.memory import MIB


@pytest.fixture
def paged(plan_run):
    """An end-to-end run of several modules, and the bytes that all its weights and momentum take."""
    run = plan_run("run", train__regime="end-to-end", model__name="km-4-2", model__width=32)
    rows = run.state().meta("demand")["forms"][-1]["rows"]
    assert len(rows) == 4
    return run, sum(row["weights"] + row["momentum"] for row in rows)


def _orders(run, budget_mb):
    costs.run(run, budget_mb)
    return [form["order"] for form in run.state().meta("demand")["forms"]]


def test_a_net_is_not_whole_where_its_weights_fit_but_no_step(paged):
    run, states = paged
    fixed_mb = run.state().meta("demand")["fixed_mb"]
    room_mb = costs.WHOLE * states / MIB
    assert "stream" in _orders(run, fixed_mb + room_mb + 200)
    assert "stream" not in _orders(run, fixed_mb + room_mb + 1)
    assert "stream" not in _orders(run, None)
