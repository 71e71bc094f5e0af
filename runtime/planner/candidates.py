"""Every plan that is allowed, in the order in which plans are tried."""

from __future__ import annotations

from collections.abc import Sequence

from edge_trgl.runtime.planner.costing import Candidate, Costing
from edge_trgl.runtime.planner.demand import Demand, Form, Measurements
from edge_trgl.runtime.planner.layouts import layouts
from edge_trgl.runtime.planner.plan import Plan

NARROW = {"fp16-boundaries": "float16", "int8-boundaries": "int8"}
"""The dtypes of narrower boundaries, by the names under which they are allowed. Nothing is computed in them."""


def ladder(
    demand: Demand,
    measured: Measurements,
    like: Plan | None = None,
    *,
    chunks: Sequence[int] = (),
    narrower: bool = False,
) -> list[Candidate]:
    """All candidates: exact plans first, then the fastest; of equals, the one that keeps more in memory.

    `like`: the plan of a run that has begun. Its form stays, unless the run may go on with `narrower` boundaries
    that are allowed; its chunk stays, unless `chunks` lists others.
    """
    lengths = tuple(chunks) or (None if like is None else (like.layout.chunk,))
    found: list[Candidate] = []
    costing = Costing(demand, measured)
    for number, form in enumerate(demand.forms):
        if _is_allowed(demand, form) if like is None else _goes_on(demand, number, like, narrower=narrower):
            found += [costing.candidate(layout) for layout in layouts(demand, number, lengths)]
    # Of whole batches with narrow boundaries, fp16 comes before int8: the alphabet agrees.
    return sorted(found, key=lambda one: (len(one.form.lossy), -one.form.size, one.form.lossy, one.seconds))


def least_memory(candidates: Sequence[Candidate], *, probing: bool = False) -> Candidate:
    """The candidate with the smallest peak; while `probing`, with the smallest that measuring may reveal."""
    return min(candidates, key=lambda one: one.hoped_mb if probing else one.peak_mb)


def least_disk(candidates: Sequence[Candidate]) -> Candidate:
    """The candidate that needs the least disk space."""
    return min(candidates, key=lambda one: one.disk.least)


def _is_allowed(demand: Demand, form: Form) -> bool:
    return set(form.lossy) <= set(demand.allowed)


def _goes_on(demand: Demand, number: int, like: Plan, *, narrower: bool) -> bool:
    """Whether a run of the plan `like` can go on in form `number`."""
    form, own = demand.forms[number], demand.forms[like.layout.form]
    if number == like.layout.form:
        return True
    same = (form.order, form.size, len(form.rows)) == (own.order, own.size, len(own.rows))
    narrow = any(form.lossy == (*own.lossy, name) for name in NARROW)
    return narrower and same and narrow and _is_allowed(demand, form)
