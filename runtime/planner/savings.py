"""What a plan's savings are worth: the peak of the same run without each of them."""

from __future__ import annotations

from collections.abc import Callable

from edge_trgl.runtime.planner.candidates import ladder, least_memory
from edge_trgl.runtime.planner.demand import Demand, Measurements
from edge_trgl.runtime.planner.plan import Layout, Plan

Has = Callable[[Demand, Layout], bool]

COMFORTS: dict[str, Has] = {
    "boundaries in memory": lambda demand, layout: layout.placement == "memory",
    "all modules in memory": lambda demand, layout: (
        layout.resident >= len(demand.repeated(demand.forms[layout.form]))
    ),
    "nothing computed again": lambda demand, layout: layout.recompute == next(iter(demand.levels)),
}


def missed(demand: Demand, plan: Plan, measured: Measurements) -> dict[str, float]:
    """For each of the `COMFORTS` that `plan` lacks: the smallest peak (MiB) of exact plans that have it, if
    any."""
    exact = [one for one in ladder(demand, measured) if not one.form.lossy]
    found = {}
    for name, has in COMFORTS.items():
        candidates = [one for one in exact if has(demand, one.layout)]
        if candidates and not has(demand, plan.layout):
            found[name] = least_memory(candidates).peak_mb
    return found
