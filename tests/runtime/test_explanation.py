"""What a plan goes without, and what that would take."""

from __future__ import annotations

import dataclasses

import pytest

from edge_trgl.runtime.demand import FORWARD, Demand, Form, ModuleRow
from edge_trgl.runtime.explanation import missed
from edge_trgl.runtime.memory import MIB
from edge_trgl.runtime.planner import choose


def _demand(order="stream", **changes):
    """Three modules of 10 MiB; a step of 30, 20 computed again; 0.25 MiB of a boundary of a batch of 8."""
    rows = tuple(
        ModuleRow(
            kind="k",
            weights=5 * MIB,
            momentum=5 * MIB,
            opening=0,
            gradients=0,
            works={"none": 30 * MIB, "all": 20 * MIB, FORWARD: 8 * MIB},
            reads=32 * 1024 if module else 0,
            writes=32 * 1024 if module < 2 else 0,
        )
        for module in range(3)
    )
    fields = {
        "forms": (Form(order=order, rows=rows, size=8),),
        "levels": {"none": 0.0, "all": 1.0},
        "batch_size": 8,
        "batches_per_epoch": 100,
        "num_samples": 800,
        "fixed_mb": 100.0,
        "others_mb": 10.0,
        "workspace": 0.0,
        "held_bytes": 0,
        "epochs": (2, 2, 2),
    }
    return Demand(**{**fields, **changes})


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
    demand = _demand("cache", epochs=(2, 2, 2))
    found = _missed(demand, 140.0)
    assert set(found) == {"boundaries in memory", "nothing computed again"}


def test_lossy_plans_do_not_count():
    demand = _demand()
    small = dataclasses.replace(demand.forms[0], size=4, lossy=("micro-batch",))
    small = dataclasses.replace(
        small, rows=tuple(dataclasses.replace(row, works={**row.works, "none": MIB}) for row in small.rows)
    )
    demand = dataclasses.replace(demand, forms=(*demand.forms, small), allowed=("micro-batch",))
    assert _missed(demand, 130.4)["nothing computed again"] == pytest.approx(140.25)
