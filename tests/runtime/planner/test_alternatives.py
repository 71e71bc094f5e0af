"""More copies, or none: bytes and seconds added up by hand."""

from __future__ import annotations

import dataclasses

import pytest

from edge_trgl.runtime.planner.alternatives import alternatives
from edge_trgl.runtime.planner.demand import FORWARD, Demand, Form, Measurement, ModuleRow, work_key
from edge_trgl.runtime.planner.planner import choose
from edge_trgl.runtime.units import MIB

RECORD, STATE, SAMPLES, BATCHES = 1000, 50_000, 80, 8


def _demand(order="cache", **changes):
    """Three modules, 8 batches of 10, 3, 4 and 5 epochs."""
    rows = tuple(
        ModuleRow(
            kind=f"k{module}",
            weights=STATE // 2,
            momentum=STATE // 2,
            opening=0,
            gradients=0,
            works={"none": MIB, FORWARD: MIB},
            reads=RECORD if module else 100,
            writes=RECORD if module < 2 else 0,
        )
        for module in range(3)
    )
    fields = {
        "forms": (Form(order=order, rows=rows, size=10),),
        "levels": {"none": 0.0},
        "batch_size": 10,
        "batches_per_epoch": BATCHES,
        "num_samples": SAMPLES,
        "fixed_mb": 100.0,
        "others_mb": 10.0,
        "workspace": 0.0,
        "held_bytes": 0,
        "epochs": (3, 4, 5),
        "image_bytes": 100,
    }
    return Demand(**{**fields, **changes})


def _found(demand, *, augmented=True, seconds=None):
    measured = {
        work_key(f"k{module}", work, 10): Measurement(opening_mb=0, work_mb=1.0, fixed_mb=90.0, seconds=each)
        for module in range(3)
        for work, each in (seconds or {}).items()
    }
    plan = choose(demand, 1e6, {}, probing=False)
    plan = dataclasses.replace(plan, layout=dataclasses.replace(plan.layout, placement="disk"))
    return list(alternatives(demand, plan, measured, augmented=augmented))


def test_more_copies_write_more_and_none_writes_no_boundary():
    here, more, none = _found(_demand())
    assert [one.copies for one in (here, more, none)] == [1, 4, 0]
    written = 2 * SAMPLES * RECORD
    assert (more.traffic.written_mb - here.traffic.written_mb) * MIB == pytest.approx(3 * written)
    assert none.traffic.written_mb * MIB == pytest.approx(3 * STATE)  # the last commit


def test_none_computes_what_lies_below_in_every_epoch():
    here, _, none = _found(_demand(), seconds={"none": 3.0, FORWARD: 1.0})
    steps = 3.0 * (3 + 4 + 5)
    assert here.traffic.compute_s == pytest.approx(BATCHES * (steps + 1 + 1))
    assert none.traffic.compute_s == pytest.approx(BATCHES * (steps + (4 + 5) + 5))


def test_plain_images_have_one_copy():
    assert [one.copies for one in _found(_demand(), augmented=False)] == [1, 0]


def test_copies_are_counted_from_those_there_are():
    assert [one.copies for one in _found(_demand(copies=2))] == [2, 8, 0]


@pytest.mark.parametrize("order", ["stream", "rounds"])
def test_without_a_cache_there_is_nothing_to_choose(order):
    assert _found(_demand(order, epochs=(3, 3, 3))) == []
