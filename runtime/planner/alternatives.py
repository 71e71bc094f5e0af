"""What a plan with cached boundaries would read, write and take with more copies of them, or with none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edge_trgl.runtime.planner.calibrated import MORE_COPIES
from edge_trgl.runtime.planner.demand import Demand, Measurements
from edge_trgl.runtime.planner.plan import Alternative, Plan
from edge_trgl.runtime.planner.traffic import traffic_of


def alternatives(demand: Demand, plan: Plan, measured: Measurements, *, augmented: bool) -> Iterator[Alternative]:
    """The copies that the plan has, more of them if images are `augmented` (else all are equal), and none.

    Empty unless modules are trained one after the other on cached boundaries.
    """
    form = demand.forms[plan.layout.form]
    if form.order != "cache":
        return
    for copies in (demand.copies, MORE_COPIES * demand.copies) if augmented else (demand.copies,):
        yield Alternative(copies=copies, traffic=traffic_of(replace(demand, copies=copies), plan, measured))
    streamed = replace(form, order="stream")
    forms = tuple(streamed if one is form else one for one in demand.forms)
    without = replace(demand, forms=forms, one_by_one=True, kept=False, copies=1)
    # At its best: neither what passes between modules nor the modules themselves go to the disk.
    layout = replace(plan.layout, placement="memory", resident=len(form.rows), chunk=1)
    yield Alternative(copies=0, traffic=traffic_of(without, replace(plan, layout=layout), measured))
