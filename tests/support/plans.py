"""Plans of runs, changed as a test needs them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge_trgl.run.facts import RunFacts
from edge_trgl.runtime.memory.limits import Limits

PLENTY = Limits(budget_mb=1e5, disk_mb=1e6)
"""Limits that no run of the suite reaches."""


def lay_out(facts: RunFacts, **changes: Any) -> None:
    """Change choices of the plan's layout."""
    change_plan(facts, layout=replace(facts.planned.plan.layout, **changes))


def change_plan(facts: RunFacts, **changes: Any) -> None:
    """Change other fields of the plan."""
    planned = facts.planned
    facts.planned = replace(planned, plan=replace(planned.plan, **changes))
