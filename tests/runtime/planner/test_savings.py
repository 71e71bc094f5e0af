"""What a plan goes without, and what that would take."""

from __future__ import annotations

import dataclasses

import pytest
from planner_demands import demand_of, row

from edge_trgl.runtime.planner.planner import choose
from edge_trgl.runtime.planner.savings import missed
from edge_trgl.runtime.units import MIB


def _demand(order="stream"):
    """Three modules of 10 MiB; a step of 30, 20 computed again; 0.25 MiB of a boundary of a batch of 8."""
    sides = ((0, 32), (32, 32), (32, 0))
    rows = [
        row(state=10, step=30, recomputed=20, forward=8, reads=reads, writes=writes) for reads, writes in sides
    ]
    return demand_of(rows, order=order, levels={"none": 0.0, "all": 1.0}, epochs=(2, 2, 2), copies=1)


def _missed(demand, budget_mb):
    return missed(demand, choose(demand, budget_mb, {}, probing=False), {})


def test_with_room_for_all_nothing_is_missed():
    assert _missed(_demand(), 1e6) == {}


def test_a_tight_plan_tells_the_least_that_each_comfort_takes():
    found = _missed(_demand(), 130.4)
    # One module and its recomputed step; then with all three, and with all of a step kept.
    assert found == pytest.approx(
        {"boundaries in memory": 130.5, "all modules in memory": 150.25, "nothing computed again": 140.25}
    )


def test_what_no_plan_has_is_not_missed():
    demand = _demand("cache")
    found = _missed(demand, 140.0)
    assert set(found) == {"boundaries in memory", "nothing computed again"}


def test_lossy_plans_do_not_count():
    demand = _demand()
    small = dataclasses.replace(demand.forms[0], size=4, lossy=("micro-batch",))
    small = dataclasses.replace(
        small, rows=tuple(dataclasses.replace(one, works={**one.works, "none": MIB}) for one in small.rows)
    )
    demand = dataclasses.replace(demand, forms=(*demand.forms, small), allowed=("micro-batch",))
    assert _missed(demand, 130.4)["nothing computed again"] == pytest.approx(140.25)
